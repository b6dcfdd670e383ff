//! What programs write.

use serde_json::json;

use crate::harness::{LONG, Running, limits};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_program_that_prints_too_much_goes_on_and_the_rest_is_dropped() {
    let running = Running::start().await;
    let script = "head -c 17825792 /dev/zero && head -c 100 /dev/zero >&2 && echo on > outputs/after";
    let job = running.platform.add_job(&["sh", "-c", script], LONG, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!(finished["outcome"], "succeeded", "{finished}");
    running.platform.see(|world| {
        let stdout = &world.output("stdout.txt").unwrap().bytes;
        let (kept, marker) = stdout.split_at(16 * MIB);
        assert!(kept.iter().all(|byte| *byte == 0));
        let expected = "\n[catacloud: 1048576 more bytes were dropped after the first 16777216]\n";
        assert_eq!(String::from_utf8_lossy(marker), expected);
        assert_eq!(world.output("stderr.txt").unwrap().bytes, [0; 100]);
        assert_eq!(world.text("after"), "on\n");
    });
    running.stop().await;
}

#[tokio::test]
async fn an_upload_that_breaks_goes_on_where_it_broke() {
    let running = Running::start().await;
    let input: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    let file = running.platform.add_file("x", &input);
    running.platform.change(|world| world.breaks.extend([123_457, 1_000_000]));
    let job = running.platform.add_job(&["cp", "inputs/x", "outputs/x"], LONG, &[file]);
    let finished = running.platform.finished(job).await;
    assert_eq!(finished["outcome"], "succeeded", "{finished}");
    running.platform.see(|world| {
        let output = world.output("x").unwrap();
        assert!(output.bytes == input, "the bytes are the same");
        assert_eq!(output.patches, [0, 123_457, 1_123_457]);
        assert_eq!(world.uploads.len(), 1);
        assert!(output.key.starts_with(&job.to_string()));
    });
    running.stop().await;
}

#[tokio::test]
async fn an_upload_that_never_gets_on_fails_the_job() {
    let running = Running::start().await;
    let attempts = limits().file_retries.attempts as usize;
    running.platform.change(|world| world.breaks.extend(vec![0; attempts]));
    let job = running.platform.add_job(&["sh", "-c", "echo x > outputs/x; echo y > outputs/y"], LONG, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &json!(0)));
    assert_eq!(finished["reason"], "output \"x\" can't be stored: the upload makes no progress");
    running.platform.see(|world| {
        let stored: Vec<_> = world.uploads.iter().filter(|(_, upload)| upload.length == upload.bytes.len()).collect();
        assert_eq!(finished["output_file_ids"], json!([stored[0].0]), "the other one is stored");
        assert_eq!(world.output("x").unwrap().patches.len(), attempts);
    });
    running.stop().await;
}

#[tokio::test]
async fn an_output_that_is_refused_fails_the_job_and_the_others_are_stored() {
    let running = Running::start().await;
    running.platform.change(|world| world.refused_files.push("b"));
    let job = running.platform.add_job(&["sh", "-c", "for file in a b c; do echo x > outputs/$file; done"], LONG, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &json!(0)));
    let reason = finished["reason"].as_str().unwrap();
    assert!(reason.starts_with("output \"b\" can't be stored: 413"), "{reason}");
    assert_eq!(finished["output_file_ids"].as_array().unwrap().len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn more_outputs_than_allowed_fail_the_job() {
    let running =
        Running::start_with(runner::Limits { output_files: 3, ..limits() }, tempfile::tempdir().unwrap()).await;
    let script = "echo x; for file in 1 2 3; do : > outputs/$file; done";
    let job = running.platform.add_job(&["sh", "-c", script], LONG, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &json!(0)));
    assert_eq!(finished["reason"], "of the outputs only 3 were stored");
    assert_eq!(finished["output_file_ids"].as_array().unwrap().len(), 3);
    running.platform.see(|world| assert_eq!(world.text("stdout.txt"), "x\n"));
    running.stop().await;
}
