//! The build of the program that `up` runs.

use std::{num::NonZero, path::PathBuf, thread};

use crate::{
    Error, console,
    scope::Scope,
    subprocess::{is_executable, succeeds_in_group},
    toolchain::{cargo, target_directory},
};

const PROFILE: &str = "release";
/// How long the first build keeps one core busy, measured on two cores.
const FIRST_BUILD_CORE_MINUTES: usize = 21;

/// Builds Catacloud with optimization and returns the path of the program.
pub(super) fn catacloud(scope: &Scope) -> Result<PathBuf, Error> {
    let program = target_directory().join(PROFILE).join("catacloud");
    if is_executable(&program) {
        console::report("building Catacloud");
    } else {
        let minutes = first_build_minutes(thread::available_parallelism().map_or(1, NonZero::get));
        console::report(format!("building Catacloud (the first build takes about {minutes} minutes)"));
    }
    let mut build = cargo();
    build.args(["build", "--profile", PROFILE, "--bin", "catacloud"]).stdout(std::io::stderr());
    if !succeeds_in_group(scope.mark(&mut build))? {
        return Err(Error::Failed("the build failed".to_owned()));
    }
    if is_executable(&program) {
        Ok(program)
    } else {
        Err(Error::Failed(format!("cargo built no {}", program.display())))
    }
}

/// Returns the expected minutes of the first build. Beyond eight cores the longest chain of crates decides.
fn first_build_minutes(cores: usize) -> usize {
    FIRST_BUILD_CORE_MINUTES.div_ceil(cores.clamp(1, 8))
}

#[cfg(test)]
mod tests {
    use super::{FIRST_BUILD_CORE_MINUTES, first_build_minutes};

    #[test]
    fn first_build_time_falls_with_cores() {
        assert_eq!(first_build_minutes(1), FIRST_BUILD_CORE_MINUTES);
        assert!(first_build_minutes(2) < first_build_minutes(1));
        assert_eq!(first_build_minutes(64), first_build_minutes(8));
    }
}
