//! Programs that exit by themselves.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    fake_platform::World,
    harness::{LONG, RunnerHarness, eventually, is_running, process_in},
};

fn instant(value: &Value) -> i64 {
    value.as_str().unwrap().parse::<epoch::Timestamp>().unwrap().as_millis()
}

fn steps(world: &World, job: Uuid) -> Vec<&str> {
    let steps = world.calls.iter().filter(|call| call.job == job && call.step != "heartbeat");
    steps.map(|call| call.step.as_str()).collect()
}

#[tokio::test]
async fn program_reads_inputs_and_its_outputs_are_stored() {
    let harness = RunnerHarness::start().await;
    let platform = &harness.platform;
    let input: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let file = platform.add_file("numbers.bin", &input);
    let script = r#"
        set -e
        cp "$CATACLOUD_INPUTS/numbers.bin" "$CATACLOUD_OUTPUTS/copy.bin"
        mkdir outputs/deep; echo nested > outputs/deep/a.csv; : > outputs/empty
        ln -s /etc/passwd outputs/link
        env > outputs/environment.txt; pwd > outputs/where.txt
        sleep 0.2
        echo hello; echo oops >&2; wc -c
    "#;
    let job = platform.add_job(&["sh", "-c", script], LONG, &[file]);
    let finished = platform.finished(job).await;

    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("succeeded"), &json!(0)), "{finished}");
    assert_eq!(finished["reason"], Value::Null);
    platform.inspect(|world| {
        assert_eq!(steps(world, job), ["started", "finished"]);
        let started = &world.calls_of(job, "started")[0].body;
        assert_eq!(started["machine_id"], finished["machine_id"]);
        let ran = instant(&finished["at"]) - instant(&started["at"]);
        assert!(ran >= 200, "ran {ran} ms");

        let mut names: Vec<_> = world.uploads.values().map(|upload| upload.metadata["filename"].as_str()).collect();
        names.sort();
        let expected = ["copy.bin", "deep_a.csv", "empty", "environment.txt", "stderr.txt", "stdout.txt", "where.txt"];
        assert_eq!(names, expected);
        let reported: Vec<Uuid> = serde_json::from_value(finished["output_file_ids"].clone()).unwrap();
        assert_eq!(reported.len(), expected.len());
        assert!(reported.iter().all(|id| world.uploads.contains_key(id)));
        for upload in world.uploads.values() {
            assert_eq!(upload.bytes.len(), upload.length);
            assert_eq!(upload.metadata["produced_by_job"], job.to_string());
        }
        assert!(world.output("copy.bin").unwrap().bytes == input, "output equals input");
        assert_eq!(world.output("deep_a.csv").unwrap().metadata["filetype"], "text/csv");
        assert_eq!(world.text("stderr.txt"), "oops\n");
        assert_eq!(world.text("stdout.txt"), "hello\n0\n", "standard input is empty");

        let environment = world.text("environment.txt");
        let mut variables: Vec<_> = environment.lines().map(|line| line.split_once('=').unwrap().0).collect();
        variables.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
        variables.sort_unstable();
        assert_eq!(variables, ["CATACLOUD_INPUTS", "CATACLOUD_JOB_ID", "CATACLOUD_OUTPUTS", "HOME", "PATH"]);
        let home = format!("HOME={}", world.text("where.txt"));
        assert!(environment.contains(&home) && environment.contains(&format!("CATACLOUD_JOB_ID={job}\n")));
    });
    let home = platform.inspect(|world| world.text("where.txt"));
    assert!(!std::path::Path::new(home.trim_end()).exists(), "the directory is removed before the report");
    harness.stop().await;
}

#[tokio::test]
async fn nonzero_exit_code_fails_the_job() {
    let harness = RunnerHarness::start().await;
    let job = harness.platform.add_job(&["sh", "-c", "echo before; exit 3"], LONG, &[]);
    let next = harness.platform.add_job(&["true"], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &json!(3)));
    assert_eq!(finished["reason"], "exit code 3");
    assert_eq!(finished["output_file_ids"].as_array().unwrap().len(), 1, "captured output is stored");
    assert_eq!(harness.platform.finished(next).await["outcome"], "succeeded");
    harness.stop().await;
}

#[tokio::test]
async fn missing_program_fails_the_job() {
    let harness = RunnerHarness::start().await;
    let job = harness.platform.add_job(&["no-such-program", "--help"], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &Value::Null));
    assert_eq!(finished["reason"], "program \"no-such-program\" was not found");
    harness.platform.inspect(|world| assert_eq!(steps(world, job), ["started", "finished"]));
    let directory = harness.platform.add_job(&["/tmp"], LONG, &[]);
    let reason = harness.platform.finished(directory).await["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("program \"/tmp\" could not be started"), "{reason}");
    let without_command = harness.platform.add_job(&[], LONG, &[]);
    assert_eq!(harness.platform.finished(without_command).await["reason"], "the job has no command");
    harness.stop().await;
}

#[tokio::test]
async fn program_killed_by_a_signal_fails_with_its_name() {
    let harness = RunnerHarness::start().await;
    let job = harness.platform.add_job(&["sh", "-c", "kill -TERM $$"], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &Value::Null));
    assert_eq!(finished["reason"], "killed by signal 15 (SIGTERM)");
    harness.stop().await;
}

#[tokio::test]
async fn background_processes_end_with_the_program() {
    let harness = RunnerHarness::start().await;
    let pid_file = harness.data.path().join("pid");
    let script = r#"sleep 1000 & echo $! > "$1"; echo done"#;
    let job = harness.platform.add_job(&["sh", "-c", script, "sh", pid_file.to_str().unwrap()], LONG, &[]);
    let finished = harness.platform.finished(job).await;
    assert_eq!(finished["outcome"], "succeeded", "{finished}");
    let left_behind = process_in(&pid_file).await;
    eventually("the end of the background process", || (!is_running(left_behind)).then_some(())).await;
    harness.stop().await;
}

#[tokio::test]
async fn unsafe_input_names_stay_inside_the_directory() {
    let harness = RunnerHarness::start().await;
    let names = ["../../escape", "/etc/passwd", "same.txt", "same.txt", "..", "a\nb", &"ä".repeat(200)];
    let files: Vec<_> = names.iter().map(|name| harness.platform.add_file(name, name.as_bytes())).collect();
    let script = r#"cd inputs; for file in *; do echo "$file"; cp "$file" "../outputs/$file"; done; ls -A | wc -l"#;
    let job = harness.platform.add_job(&["sh", "-c", script], LONG, &files);
    assert_eq!(harness.platform.finished(job).await["outcome"], "succeeded");
    harness.platform.inspect(|world| {
        let long = "ä".repeat(60);
        let staged = ["_.._escape", "_etc_passwd", "same.txt", "same-2.txt", "file", "a_b", &long];
        assert!(world.text("stdout.txt").ends_with("\n7\n"), "{}", world.text("stdout.txt"));
        for (staged, content) in staged.iter().zip(names) {
            assert_eq!(world.text(staged), content);
        }
    });
    harness.stop().await;
}
