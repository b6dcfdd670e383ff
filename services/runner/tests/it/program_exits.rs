//! Jobs that run to their own end.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    fake_platform::World,
    harness::{LONG, Running, eventually, process_in, runs},
};

fn instant(value: &Value) -> i64 {
    value.as_str().unwrap().parse::<epoch::Timestamp>().unwrap().as_millis()
}

fn steps(world: &World, job: Uuid) -> Vec<&str> {
    let steps = world.calls.iter().filter(|call| call.job == job && call.step != "heartbeat");
    steps.map(|call| call.step.as_str()).collect()
}

#[tokio::test]
async fn a_job_reads_its_files_and_its_outputs_are_stored() {
    let running = Running::start().await;
    let platform = &running.platform;
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
    platform.see(|world| {
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
        assert!(world.output("copy.bin").unwrap().bytes == input, "the bytes are the input's");
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
    let home = platform.see(|world| world.text("where.txt"));
    assert!(!std::path::Path::new(home.trim_end()).exists(), "the directory is removed before the end is reported");
    running.stop().await;
}

#[tokio::test]
async fn an_exit_code_other_than_zero_is_a_failure_and_the_next_job_runs() {
    let running = Running::start().await;
    let job = running.platform.add_job(&["sh", "-c", "echo before; exit 3"], LONG, &[]);
    let next = running.platform.add_job(&["true"], LONG, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &json!(3)));
    assert_eq!(finished["reason"], "exit code 3");
    assert_eq!(finished["output_file_ids"].as_array().unwrap().len(), 1, "what it printed is stored");
    assert_eq!(running.platform.finished(next).await["outcome"], "succeeded");
    running.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_failure() {
    let running = Running::start().await;
    let job = running.platform.add_job(&["no-such-program", "--help"], LONG, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &Value::Null));
    assert_eq!(finished["reason"], "program \"no-such-program\" was not found");
    running.platform.see(|world| assert_eq!(steps(world, job), ["started", "finished"]));
    let directory = running.platform.add_job(&["/tmp"], LONG, &[]);
    let reason = running.platform.finished(directory).await["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("program \"/tmp\" can't be started"), "{reason}");
    let nothing = running.platform.add_job(&[], LONG, &[]);
    assert_eq!(running.platform.finished(nothing).await["reason"], "the job has no command");
    running.stop().await;
}

#[tokio::test]
async fn a_program_killed_by_a_signal_is_a_failure_that_names_it() {
    let running = Running::start().await;
    let job = running.platform.add_job(&["sh", "-c", "kill -TERM $$"], LONG, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!((&finished["outcome"], &finished["exit_code"]), (&json!("failed"), &Value::Null));
    assert_eq!(finished["reason"], "killed by signal 15 (SIGTERM)");
    running.stop().await;
}

#[tokio::test]
async fn what_a_program_leaves_running_is_ended_with_it() {
    let running = Running::start().await;
    let number = running.data.path().join("number");
    let script = r#"sleep 1000 & echo $! > "$1"; echo done"#;
    let job = running.platform.add_job(&["sh", "-c", script, "sh", number.to_str().unwrap()], LONG, &[]);
    let finished = running.platform.finished(job).await;
    assert_eq!(finished["outcome"], "succeeded", "{finished}");
    let left_behind = process_in(&number).await;
    eventually("its end", || (!runs(left_behind)).then_some(())).await;
    running.stop().await;
}

#[tokio::test]
async fn nasty_input_names_stay_inside_the_directory() {
    let running = Running::start().await;
    let names = ["../../escape", "/etc/passwd", "same.txt", "same.txt", "..", "a\nb", &"ä".repeat(200)];
    let files: Vec<_> = names.iter().map(|name| running.platform.add_file(name, name.as_bytes())).collect();
    let script = r#"cd inputs; for file in *; do echo "$file"; cp "$file" "../outputs/$file"; done; ls -A | wc -l"#;
    let job = running.platform.add_job(&["sh", "-c", script], LONG, &files);
    assert_eq!(running.platform.finished(job).await["outcome"], "succeeded");
    running.platform.see(|world| {
        let long = "ä".repeat(60);
        let staged = ["_.._escape", "_etc_passwd", "same.txt", "same-2.txt", "file", "a_b", &long];
        assert!(world.text("stdout.txt").ends_with("\n7\n"), "{}", world.text("stdout.txt"));
        for (staged, content) in staged.iter().zip(names) {
            assert_eq!(world.text(staged), content);
        }
    });
    running.stop().await;
}
