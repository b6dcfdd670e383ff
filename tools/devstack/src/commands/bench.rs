//! `./dev bench`: the benchmarks of `bench/`, and the comparison with other event stores of `bench/peers/`.

use std::{env, ffi::OsString, fs, path::PathBuf};

use super::{run_in_scope, scope_environment};
use crate::{
    Error, checkout, servers,
    subprocess::succeeds_in_group,
    test_servers,
    toolchain::{self, cargo},
};

pub(crate) fn run(arguments: &[String]) -> Result<(), Error> {
    // A workspace of its own: the peers bring other versions of the same dependencies.
    let (manifest, arguments) = match arguments.split_first() {
        Some((first, rest)) if first == "epoch" => ("bench/peers/Cargo.toml", rest),
        _ => ("bench/Cargo.toml", arguments),
    };
    let has_kafka = manifest == "bench/Cargo.toml";
    if !checkout::root().join(manifest).is_file() {
        return Err(Error::Failed(format!("there is no {manifest}")));
    }
    toolchain::require_disk()?;
    toolchain::require_rust()?;
    run_in_scope("bench", |scope| {
        let mut environment = scope_environment(scope);
        let postgres = test_servers::postgres(scope, shared_buffers())?;
        environment.extend(postgres.address.map(|url| ("EPOCH_BENCH_DATABASE_URL", url.into())));
        if has_kafka {
            let kafka = test_servers::kafka(scope, true)?;
            environment.extend(kafka.address.map(|address| ("EPOCH_BENCH_KAFKA", address.into())));
            environment.push(("CATACLOUD_DEV_KAFKA_FULL_JIT", "1".into()));
        }
        environment.push(("PGBENCH", servers::postgres::find_pgbench()?.into()));
        environment.push(("CARGO_TARGET_DIR", target_directory().into()));
        let mut command = cargo();
        command.args(["run", "--release", "--manifest-path", manifest, "--locked", "--"]).args(arguments);
        command.envs(environment);
        if succeeds_in_group(&mut command)? { Ok(()) } else { Err(Error::Failed("the benchmark failed".to_owned())) }
    })
}

fn target_directory() -> PathBuf {
    let chosen = env::var_os("CARGO_TARGET_DIR").filter(|directory: &OsString| !directory.is_empty());
    chosen.map_or_else(|| checkout::root().join("bench/target"), PathBuf::from)
}

/// Returns a quarter of the memory, as PostgreSQL's manual recommends for a dedicated server.
fn shared_buffers() -> Option<String> {
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    Some(format!("{}MB", total_kb(&memory)? / 4096))
}

fn total_kb(memory: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total_kb;

    #[test]
    fn total_memory_is_read_in_kilobytes() {
        assert_eq!(total_kb("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), Some(16_384_000));
    }
}
