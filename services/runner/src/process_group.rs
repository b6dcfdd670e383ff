//! A job's processes as a whole.
//!
//! The problem: killing a program leaves alive what it started.
//!
//! The invariant: a job's program leads a process group of its own; [`ProcessGroup::kill`] ends all of it, and so does
//! dropping it, so that no way out of the runner leaves the group behind. (A process can leave its group by `setsid`; only a
//! container or a control group would hold it.)

use std::{
    process::{Command, Stdio},
    time::Duration,
};

/// A program may have used up what starting another process takes, so killing is tried for a while.
const ATTEMPTS: u32 = 50;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

/// The group that the process of this number leads.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    leader: u32,
    killed: bool,
}

impl ProcessGroup {
    pub(crate) fn of(leader: u32) -> Self {
        Self { leader, killed: false }
    }

    /// Kills all processes of the group, if there are any.
    pub(crate) async fn kill(mut self) {
        for _ in 0..ATTEMPTS {
            match tokio::process::Command::from(kill_command(self.leader)).status().await {
                Ok(_) => {
                    self.killed = true;
                    return;
                }
                Err(error) => tracing::warn!(%error, group = self.leader, "process group can't be killed yet"),
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if self.killed {
            return;
        }
        if let Err(error) = kill_command(self.leader).status() {
            tracing::error!(%error, group = self.leader, "process group can't be killed");
        }
    }
}

/// Sending a signal is a system call that safe Rust doesn't have; the shell's built-in `kill` is there wherever jobs can be
/// run. It fails when the group has no process any more, which is as good.
fn kill_command(leader: u32) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -s KILL -- \"-$1\"", "sh", &leader.to_string()]);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
