//! Kills all processes of an attempt.
//!
//! Killing only the program would leave its child processes running. The program therefore leads a process group of its own.
//! Both [`ProcessGroup::kill`] and dropping the group kill every process in it, so no exit path of the runner leaks
//! processes. A process can leave the group with `setsid`; only a container or a control group would contain it.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

/// The program may have exhausted process ids or memory, so that `kill` cannot start at first.
const KILL_ATTEMPTS: u32 = 50;
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A process group, identified by the process id of its leader.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    leader: u32,
    killed: bool,
}

impl ProcessGroup {
    pub(crate) fn led_by(leader: u32) -> Self {
        Self { leader, killed: false }
    }

    /// Kills all remaining processes of the group.
    pub(crate) async fn kill(mut self) {
        for _ in 0..KILL_ATTEMPTS {
            match tokio::process::Command::from(kill_command(self.leader)).status().await {
                Ok(_) => {
                    self.killed = true;
                    return;
                }
                Err(error) => tracing::warn!(%error, group = self.leader, "kill of the process group failed; retrying"),
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if self.killed {
            return;
        }
        if let Err(error) = kill_command(self.leader).status() {
            tracing::error!(%error, group = self.leader, "kill of the process group failed");
        }
    }
}

/// Returns a command that sends SIGKILL to the group.
///
/// Safe Rust has no system call for signals, but every machine that runs jobs has the `kill` of its shell. The command fails
/// when the group has no processes left, which is fine.
fn kill_command(leader: u32) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -s KILL -- \"-$1\"", "sh", &leader.to_string()]);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
