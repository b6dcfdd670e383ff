//! `billing rate`: from a file of events and plans to usage and an invoice, without a database or a broker.
//!
//! The problem: "what would this plan have cost?" must be answerable by anyone who has the events, and must be answered as the
//! service answers it. So the program reads a document ([`input`]), puts its events in order ([`history`]), asks the same functions
//! as the service, and writes what they say ([`output`]).
//!
//! The invariant: the answer is a function of the document alone. Events may come in any order and repeatedly. A document that
//! can't be used is refused as a whole: one line that names the place, exit status 2, and nothing on standard output.

mod history;
mod input;
mod output;

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::{
    calendar::day::days,
    metering::{
        anomaly::{Flag, Flagged},
        compute::{JobRun, compute_usage},
        level::{LevelChange, areas, level_at},
        pairing::{Moment, pair},
        run::Run,
        storage::{FileUsage, StorageOfJobs},
    },
    rating::{rate::rate, term::terms, usage_amounts::Metered},
    sharing::{
        rule::Rules,
        shares::{InSpan, shares},
    },
    validation::Refused,
};
use history::{History, JobMoment};
use input::{Input, Question};
use output::Answer;

/// The longest document that is read, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// Exit status for what can't be used.
const REFUSED: u8 = 2;

/// What `billing rate` is told.
#[derive(Debug, Args)]
pub struct RateArgs {
    /// The document of events and plans; - for standard input
    #[arg(long, value_name = "FILE|-")]
    input: PathBuf,
}

/// Runs `billing rate`.
#[must_use]
pub fn run(args: &RateArgs) -> ExitCode {
    let answer = match read(&args.input).and_then(|document| answer(&document)) {
        Ok(answer) => answer,
        Err(refused) => {
            // Names and values from the document may have line breaks, and this is one line.
            eprintln!("{}", refused.to_string().replace(char::is_control, " "));
            return ExitCode::from(REFUSED);
        }
    };
    let mut stdout = BufWriter::new(io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut stdout, &answer).map_err(io::Error::from);
    match written.and_then(|()| writeln!(stdout)).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Refused> {
    let refused = |error: io::Error| Refused::new(path.display().to_string(), error);
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(path).map_err(refused)?),
    };
    let mut document = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut document).map_err(refused)?;
    if document.len() as u64 > MAX_BYTES {
        return Err(Refused::new(path.display().to_string(), format!("is longer than {MAX_BYTES} bytes")));
    }
    Ok(document)
}

/// What a document's events use and cost.
///
/// # Errors
/// [`Refused`] with the place in the document.
pub fn answer(document: &[u8]) -> Result<Answer, Refused> {
    let input = Input::read(document)?;
    let question = input.question()?;
    let history = input.history()?;
    let Question { window, zone, subscriptions, adjustments } = &question;
    let days = days(window.period, zone).map_err(|error| Refused::new("period", error))?;
    let terms = terms(window.period, subscriptions);

    let mut runs = Vec::new();
    for (job, moments) in &history.jobs {
        for pair in pair(moments.iter().copied()) {
            let user = pair.last_start.and_then(|start| start.user);
            let at = |moment: Option<JobMoment<'_>>| moment.map(|moment| moment.at());
            runs.push(JobRun { job: *job, user, run: Run { started_at: at(pair.started), ended_at: at(pair.ended) } });
        }
    }
    let compute = compute_usage(&runs, *window, &days);
    let (storage, changes) = stored(&history, &question, &Rules::of(&terms));
    let counted = window.counted();
    let stored_on = areas(&changes, days.iter().map(|day| day.span.intersect(counted)));

    let spans = || terms.iter().map(|term| term.span.intersect(counted));
    let running: Vec<_> = runs.iter().filter_map(|run| run.run.level_changes(window.as_of)).flatten().collect();
    let metered = areas(&changes, spans()).into_iter().zip(areas(&running, spans()));
    let metered = metered.map(|(byte_ms, run_ms)| Metered { byte_ms, run_ms });
    let usage: Vec<_> = terms.iter().cloned().zip(metered).collect();
    let invoice = rate(&usage, adjustments).map_err(input::refused_rating)?;
    let rated = usage.iter().fold(Metered::default(), |sum, (_, metered)| sum.plus(*metered));
    let unrated = Metered { byte_ms: storage.byte_ms - rated.byte_ms, run_ms: compute.run_ms - rated.run_ms };
    Ok(Answer::new(&storage, &days.into_iter().zip(stored_on).collect::<Vec<_>>(), &compute, invoice.as_ref(), unrated))
}

/// What is stored, and all changes of it.
fn stored<'d>(
    history: &History<'d>,
    question: &Question,
    rules: &Rules,
) -> (StorageOfJobs<&'d str, &'d str>, Vec<LevelChange>) {
    let window = question.window;
    let counted = window.counted();
    // As in the service, a job of nobody known is of a user of its own.
    let user = |job: &&'d str| history.user(job, window.as_of).ok_or(*job);
    let mut storage = StorageOfJobs::default();
    let mut all = Vec::new();
    for (id, file) in &history.files {
        let levels = file.levels();
        storage.provisional |= window.is_cut() && level_at(&levels, window.as_of) != 0;
        all.extend(levels);
        if file.odd.iter().any(|at| counted.start() <= *at && *at < counted.end()) {
            storage.flags.push(Flagged { flag: Flag::NegativeLevel, id: *id });
        }
        let (InSpan { byte_ms, unattributed_byte_ms, stored, .. }, jobs) =
            shares(&file.changes, &[counted], rules, user).together();
        storage.byte_ms += byte_ms;
        if stored {
            storage.files.push(FileUsage { file: *id, byte_ms, unattributed_byte_ms, jobs });
        }
    }
    (storage, all)
}
