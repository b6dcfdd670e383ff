//! Captured output and output files.

use serde_json::json;

use crate::harness::{LONG, RunnerHarness, limits};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn excess_output_is_truncated_without_blocking() {
    let harness = RunnerHarness::start().await;
    let script = "head -c 17825792 /dev/zero && head -c 100 /dev/zero >&2 && echo on > outputs/after";
    let job = harness.platform.add_job(&["sh", "-c", script], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!(finished["outcome"], "succeeded", "{finished}");
    harness.platform.inspect(|world| {
        let stdout = &world.output("stdout.txt").unwrap().bytes;
        let (kept, marker) = stdout.split_at(16 * MIB);
        assert!(kept.iter().all(|byte| *byte == 0));
        let expected = "\n[catacloud: output truncated after 16777216 bytes, 1048576 bytes dropped]\n";
        assert_eq!(String::from_utf8_lossy(marker), expected);
        assert_eq!(world.output("stderr.txt").unwrap().bytes, [0; 100]);
        assert_eq!(world.text("after"), "on\n");
    });
    harness.stop().await;
}

#[tokio::test]
async fn broken_upload_resumes_at_the_stored_offset() {
    let harness = RunnerHarness::start().await;
    let input: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    let file = harness.platform.add_file("x", &input);
    harness.platform.change(|world| world.upload_breaks.extend([123_457, 1_000_000]));
    let job = harness.platform.add_job(&["cp", "inputs/x", "outputs/x"], LONG, &[file]);
    let finished = harness.platform.finished(job).await;
    assert_eq!(finished["outcome"], "succeeded", "{finished}");
    harness.platform.inspect(|world| {
        let output = world.output("x").unwrap();
        assert!(output.bytes == input, "output equals input");
        assert_eq!(output.patch_offsets, [0, 123_457, 1_123_457]);
        assert_eq!(world.uploads.len(), 1);
        assert!(output.key.starts_with(&job.to_string()));
    });
    harness.stop().await;
}

#[tokio::test]
async fn upload_without_progress_fails_the_job() {
    let harness = RunnerHarness::start().await;
    let attempts = limits().file_retries.attempts as usize;
    harness.platform.change(|world| world.upload_breaks.extend(vec![0; attempts]));
    let job = harness.platform.add_job(&["sh", "-c", "echo x > outputs/x; echo y > outputs/y"], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &json!(0)));
    assert_eq!(finished["reason"], "output \"x\" could not be stored: the upload makes no progress");
    harness.platform.inspect(|world| {
        let stored: Vec<_> = world.uploads.iter().filter(|(_, upload)| upload.length == upload.bytes.len()).collect();
        assert_eq!(finished["output_file_ids"], json!([stored[0].0]), "the other output is stored");
        assert_eq!(world.output("x").unwrap().patch_offsets.len(), attempts);
    });
    harness.stop().await;
}

#[tokio::test]
async fn rejected_output_fails_the_job_and_keeps_the_others() {
    let harness = RunnerHarness::start().await;
    harness.platform.change(|world| world.rejected_files.push("b"));
    let job = harness.platform.add_job(&["sh", "-c", "for file in a b c; do echo x > outputs/$file; done"], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &json!(0)));
    let reason = finished["reason"].as_str().unwrap();
    assert!(reason.starts_with("output \"b\" could not be stored: 413"), "{reason}");
    assert_eq!(finished["output_file_ids"].as_array().unwrap().len(), 2);
    harness.stop().await;
}

#[tokio::test]
async fn too_many_outputs_fail_the_job() {
    let harness =
        RunnerHarness::start_with(runner::Limits { output_files: 3, ..limits() }, tempfile::tempdir().unwrap()).await;
    let script = "echo x; for file in 1 2 3; do : > outputs/$file; done";
    let job = harness.platform.add_job(&["sh", "-c", script], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &json!(0)));
    assert_eq!(finished["reason"], "too many output files; only 3 were stored");
    assert_eq!(finished["output_file_ids"].as_array().unwrap().len(), 3);
    harness.platform.inspect(|world| assert_eq!(world.text("stdout.txt"), "x\n"));
    harness.stop().await;
}
