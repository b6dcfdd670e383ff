//! The command line of `./dev`.

use std::{env, path::Path, process::ExitCode};

use rustix::fs::Mode;

use crate::{
    Error,
    commands::{bench, down, lint, server, test, up},
    console, interrupt,
    servers::ServerKind,
};

/// The text of `./dev help`.
pub const HELP: &str = include_str!("help.txt");

/// Runs the command of this process' arguments and returns its exit status.
#[must_use]
pub fn main() -> ExitCode {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    match interrupt::install().and_then(|()| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A gate has printed its failure below its own output, and an interruption needs no explanation.
            if !matches!(error, Error::GateFailed { .. } | Error::Interrupted(_)) {
                console::report(format!("dev: {error}"));
            }
            ExitCode::from(error.exit_status())
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let (command, arguments) = match arguments.split_first() {
        Some((command, arguments)) => (command.as_str(), arguments),
        None => ("help", arguments),
    };
    if matches!(command, "help" | "-h" | "--help") {
        console::print(HELP.trim_end());
        return Ok(());
    }
    let server = ServerKind::parse(command);
    if server.is_none() && !matches!(command, "up" | "down" | "test" | "lint" | "bench") {
        console::report(HELP.trim_end());
        return Err(Error::UnknownCommand(command.to_owned()));
    }
    if !Path::new("/proc/self/stat").exists() {
        return Err(Error::NotLinux);
    }
    match (server, command) {
        (Some(kind), _) => server::run(kind, arguments),
        (None, "up") => up::run(arguments),
        (None, "down") => down::run(arguments),
        (None, "test") => test::run(arguments),
        (None, "lint") => lint::run(arguments),
        (None, _) => bench::run(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::{HELP, run};
    use crate::Error;

    fn run_words(words: &[&str]) -> Result<(), Error> {
        run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn help_describes_every_command() {
        for command in ["up", "down", "test", "lint", "bench", "help", "postgres", "kafka", "rabbitmq"] {
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(command)), "{command}");
        }
        for words in [&["help"][..], &["-h"], &["--help"], &[]] {
            run_words(words).unwrap();
        }
    }

    #[test]
    fn wrong_arguments_are_errors() {
        assert!(matches!(run_words(&["fly"]), Err(Error::UnknownCommand(command)) if command == "fly"));
        for words in [&["up", "now"][..], &["down", "--all"], &["lint", "x"], &["kafka", "start", "x"], &["postgres"]] {
            assert!(matches!(run_words(words), Err(Error::Usage(_))), "{words:?}");
        }
        assert!(matches!(run_words(&["postgres", "start", "x", "0"]), Err(Error::InvalidPort(_))));
    }
}
