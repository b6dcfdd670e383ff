//! Redpanda in Docker, for `./dev up`. `down` stops the container, `up` starts it again with its data, and
//! `down --wipe` removes it.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Error, checkout, ports,
    subprocess::{append_output, discard_output, find_program, succeeds, succeeds_within, write_output},
};

const IMAGE: &str = "docker.redpanda.com/redpandadata/redpanda:v25.3.9";

/// Returns the version of the image.
pub(crate) fn version() -> &'static str {
    IMAGE.rsplit(':').next().unwrap_or(IMAGE)
}

/// Returns whether a Docker engine answers within ten seconds.
pub(crate) fn docker_answers() -> Result<bool, Error> {
    if find_program("docker").is_none() {
        return Ok(false);
    }
    let mut docker = Command::new("docker");
    docker.args(["version", "--format", "{{.Server.Version}}"]);
    succeeds_within(Duration::from_secs(10), discard_output(&mut docker))
}

/// Returns the path of the log of the last start.
pub(crate) fn log() -> PathBuf {
    checkout::up().join("redpanda.log")
}

/// Starts the container and returns the broker's address, or `None` if it doesn't start: the caller has other buses.
pub(crate) fn start() -> Result<Option<String>, Error> {
    let (name, log) = (container_name(&checkout::root()), log());
    let restarted = match last_port() {
        Some(port) => succeeds(write_output(Command::new("docker").args(["start", &name]), &log)?)?.then_some(port),
        None => None,
    };
    let port = match restarted {
        Some(port) => port,
        None => {
            succeeds(discard_output(Command::new("docker").args(["rm", "-f", &name])))?;
            let port = ports::choose()?;
            if !succeeds(write_output(&mut create(&name, port), &log)?)? {
                return Ok(None);
            }
            checkout::write(&port_file(), format!("{port}\n"))?;
            port
        }
    };
    // Docker's proxy listens before the broker does, so an open port proves nothing.
    let mut health = Command::new("docker");
    health.args(["exec", &name, "rpk", "cluster", "health", "--exit-when-healthy"]);
    let healthy = succeeds_within(Duration::from_secs(90), append_output(&mut health, &log)?)?;
    Ok(healthy.then(|| format!("127.0.0.1:{port}")))
}

/// Stops the container and keeps its data.
pub(crate) fn stop() -> Result<(), Error> {
    end(&["stop"])
}

/// Removes the container with its data.
pub(crate) fn remove() -> Result<(), Error> {
    end(&["rm", "-f"])
}

fn end(arguments: &[&str]) -> Result<(), Error> {
    if port_file().is_file() && find_program("docker").is_some() {
        let mut docker = Command::new("docker");
        docker.args(arguments).arg(container_name(&checkout::root()));
        succeeds_within(Duration::from_secs(60), discard_output(&mut docker))?;
    }
    Ok(())
}

fn create(name: &str, port: u16) -> Command {
    let mut docker = Command::new("docker");
    docker.args(["run", "-d", "--name", name, "-p", &format!("127.0.0.1:{port}:{port}"), IMAGE]);
    docker.args(["redpanda", "start", "--mode", "dev-container", "--smp", "1", "--memory", "1G"]);
    docker.args(["--default-log-level=warn", "--kafka-addr", &format!("external://0.0.0.0:{port}")]);
    docker.args(["--advertise-kafka-addr", &format!("external://127.0.0.1:{port}")]);
    docker
}

fn port_file() -> PathBuf {
    checkout::up().join("redpanda.port")
}

fn last_port() -> Option<u16> {
    ports::parse(fs::read_to_string(port_file()).ok()?.trim()).ok()
}

/// Returns the name of the checkout's container: one for each checkout on this machine.
fn container_name(root: &Path) -> String {
    let mut line = root.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    format!("catacloud-redpanda-{}", cksum(&line))
}

/// Returns the checksum of POSIX `cksum`.
fn cksum(bytes: &[u8]) -> u32 {
    let length = std::iter::successors(Some(bytes.len()), |rest| Some(rest >> 8)).take_while(|rest| *rest != 0);
    let length = length.map(|rest| rest.to_le_bytes()[0]);
    let crc = bytes.iter().copied().chain(length).fold(0_u32, |crc, byte| {
        (0..8).fold(crc ^ (u32::from(byte) << 24), |crc, _| {
            if crc & 0x8000_0000 == 0 { crc << 1 } else { (crc << 1) ^ 0x04C1_1DB7 }
        })
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::cksum;

    #[test]
    fn cksum_agrees_with_the_posix_program() {
        assert_eq!(cksum(b"abc\n"), 1_112_837_078);
        assert_eq!(cksum(b""), 4_294_967_295);
    }
}
