//! `./dev lint`: the gates that read the sources, without servers.

use std::time::Instant;

use crate::{Error, console, gates::Gates, toolchain};

pub(crate) fn run(arguments: &[String]) -> Result<(), Error> {
    if !arguments.is_empty() {
        return Err(Error::Usage("./dev lint"));
    }
    let began = Instant::now();
    toolchain::require_disk()?;
    toolchain::require_rust()?;
    toolchain::require_components()?;
    let gates = Gates::new("lint", Vec::new());
    gates.format()?;
    gates.shell_scripts()?;
    gates.checks()?;
    gates.lints()?;
    console::print(format!("\ntotal {} s\ndev lint: passed", began.elapsed().as_secs()));
    Ok(())
}
