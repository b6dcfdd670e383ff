//! Demo data, created by Catacloud's own `demo` command.

use std::{path::PathBuf, process::Command};

use super::{catacloud::Catacloud, secrets::Secrets};
use crate::{Error, checkout, console, scope::Scope, subprocess::succeeds};

/// The demo organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Demo {
    pub(super) organization: String,
    pub(super) api_key: String,
    pub(super) job: String,
}

impl Demo {
    /// Creates the demo data through Catacloud's API; running it again finds the same.
    pub(super) fn create(catacloud: &Catacloud, base: &str, secrets: &Secrets, scope: &Scope) -> Result<Self, Error> {
        console::report("creating the demo data");
        let (out, log) = (file("demo.out"), file("demo.log"));
        let mut command = Command::new(catacloud.program());
        // By the environment, as every user of the machine can read a command line.
        command.args(["demo", "--url", base]).env("CATACLOUD_ADMIN_KEY", secrets.admin_key());
        scope.mark(&mut command);
        checkout::write_private(&out, "")?;
        let open = |path: &PathBuf| std::fs::File::options().append(true).open(path).map_err(Error::io("open", path));
        checkout::write_private(&log, "")?;
        command.stdout(open(&out)?).stderr(open(&log)?);
        if !succeeds(&mut command)? {
            console::report_log_tail(&log);
            return Err(Error::Failed("the demo data could not be created".to_owned()));
        }
        let text = std::fs::read_to_string(&out).map_err(Error::io("read", out))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut demo = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "organization" => demo.organization = value.to_owned(),
                "api_key" => demo.api_key = value.to_owned(),
                "job" => demo.job = value.to_owned(),
                _ => {}
            }
        }
        demo
    }
}

fn file(name: &str) -> PathBuf {
    checkout::up().join(name)
}

#[cfg(test)]
mod tests {
    use super::Demo;

    #[test]
    fn demo_is_read_from_lines() {
        let demo = Demo::parse("organization=0190\nother=x\napi_key=cat_a=b\njob=0191\n");
        let expected = Demo { organization: "0190".into(), api_key: "cat_a=b".into(), job: "0191".into() };
        assert_eq!(demo, expected);
    }
}
