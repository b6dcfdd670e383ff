//! Kafka's jars and the Java that runs them.

use std::{env, fs, path::PathBuf, process::Command};

use crate::{
    Error, checkout, console,
    process::wait_until,
    random,
    subprocess::{find_program, succeeds, write_output},
};

/// The version that is downloaded.
pub(crate) const VERSION: &str = "4.1.0";

const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";
/// Another process may download the jars first.
const LOCK_LIMIT: std::time::Duration = std::time::Duration::from_secs(1_800);

/// Returns the directory of the jars, which exists when they are complete.
pub(super) fn libraries() -> PathBuf {
    checkout::cache().join(format!("kafka-{VERSION}"))
}

/// Returns the program `java`, of `JAVA_HOME` if that is set.
pub(super) fn java() -> PathBuf {
    let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    home.map_or_else(|| PathBuf::from("java"), |home| PathBuf::from(home).join("bin/java"))
}

pub(super) fn has_java_17() -> bool {
    // Java writes its version to stderr.
    let output = Command::new(java()).arg("-version").output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        output.status.success() && major_version(&text).is_some_and(|version| version >= 17)
    })
}

fn major_version(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version \"")?;
    let digits = version.find(|character: char| !character.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// Downloads the jars from Maven Central unless they are in the cache.
pub(super) fn require() -> Result<(), Error> {
    if libraries().is_dir() {
        return Ok(());
    }
    let missing = |server, remedy| Err(Error::ServerMissing { server, remedy });
    if !has_java_17() {
        let remedy = "apt-get install default-jre-headless maven, or set KAFKA_BOOTSTRAP_SERVERS";
        return missing("Java 17 or newer", remedy);
    }
    if find_program("mvn").is_none() {
        return missing("Maven", "apt-get install maven, or set KAFKA_BOOTSTRAP_SERVERS");
    }
    let cache = checkout::cache();
    checkout::create_directory(&cache)?;
    let lock_path = cache.join("lock");
    let lock = fs::File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
    if !wait_until(LOCK_LIMIT, || lock.try_lock().is_ok())? {
        return Err(Error::Failed(format!("another process holds {} for too long", lock_path.display())));
    }
    if libraries().is_dir() {
        return Ok(());
    }
    let new = cache.join(format!("kafka-new.{}", random::hex::<6>()?));
    let downloaded = download(&new);
    checkout::delete(&new)?;
    downloaded
}

fn download(directory: &std::path::Path) -> Result<(), Error> {
    console::report(format!("downloading Apache Kafka {VERSION}"));
    checkout::create_directory(directory)?;
    let (pom, new, log) = (directory.join("pom.xml"), directory.join("libs"), checkout::cache().join("maven.log"));
    checkout::write(&pom, include_str!("pom.xml").replace("@KAFKA_VERSION@", VERSION))?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(&pom).args([COPY_DEPENDENCIES, "-DincludeScope=runtime"]);
    maven.arg(format!("-DoutputDirectory={}", new.display()));
    if !succeeds(write_output(&mut maven, &log)?)? {
        console::report_log_tail(&log);
        return Err(Error::Failed(format!("Maven could not fetch Apache Kafka {VERSION}")));
    }
    fs::rename(&new, libraries()).map_err(Error::io("create", libraries()))
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn major_version_is_read_from_java_output() {
        assert_eq!(major_version("openjdk version \"17.0.19\" 2026-04-21"), Some(17));
        assert_eq!(major_version("java version \"1.8.0_391\""), Some(1));
        assert_eq!(major_version("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(major_version("no java"), None);
    }
}
