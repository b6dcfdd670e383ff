//! Command-line settings.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::contestants::NAMES;

pub const HELP: &str =
    "./dev bench epoch [--rows 1,2,…] [--only epoch,mire,…] [--rounds N] [--window MS] [--depths 10,…]
                  [--events N] [--quick]

  --rows     rows of the comparison, 1 to 8 (default: all)
  --only     contestants (default: all): epoch, epoch-plain, cqrs-es, esrs, evento, mire, eventastic
  --rounds   number of rounds (default: 5)
  --window   length of each measurement in milliseconds (default: 800)
  --depths   events per aggregate in row 2 (default: 10,100,1000)
  --events   seeded events per depth in row 2 (default: 100000, which is 10,000 aggregates at depth 10)
  --quick    one round with short windows, to check that everything works";

pub struct Settings {
    pub server: String,
    pub pgbench: Option<String>,
    pub rows: Vec<usize>,
    pub contestants: Vec<String>,
    pub rounds: usize,
    pub window: Duration,
    pub depths: Vec<usize>,
    pub seeded_events: usize,
    pub replayed_events: usize,
    pub caught_up_depth: usize,
    pub visible_samples: usize,
    pub rollbacks: Duration,
}

impl Settings {
    pub fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let server = std::env::var("EPOCH_BENCH_DATABASE_URL")
            .context("EPOCH_BENCH_DATABASE_URL is not set; run ./dev bench epoch")?;
        let mut settings = Self {
            server,
            pgbench: std::env::var("PGBENCH").ok(),
            rows: (1..=8).collect(),
            contestants: NAMES.map(str::to_owned).to_vec(),
            rounds: 5,
            window: Duration::from_millis(800),
            depths: vec![10, 100, 1_000],
            seeded_events: 100_000,
            replayed_events: 10_000,
            caught_up_depth: 100,
            visible_samples: 100,
            rollbacks: Duration::from_secs(4),
        };
        while let Some(argument) = arguments.next() {
            if argument == "--quick" {
                settings.rounds = 1;
                settings.window = Duration::from_millis(150);
                settings.seeded_events = 2_000;
                settings.replayed_events = 500;
                settings.caught_up_depth = 5;
                settings.visible_samples = 5;
                settings.rollbacks = Duration::from_millis(700);
                continue;
            }
            let value = arguments.next().with_context(|| format!("missing value for {argument}\n\n{HELP}"))?;
            match argument.as_str() {
                "--rows" => settings.rows = numbers(&value).context("--rows")?,
                "--depths" => settings.depths = numbers(&value).context("--depths")?,
                "--only" => settings.contestants = value.split(',').map(str::to_owned).collect(),
                "--rounds" => settings.rounds = value.parse().context("--rounds")?,
                "--window" => settings.window = Duration::from_millis(value.parse().context("--window")?),
                "--events" => settings.seeded_events = value.parse().context("--events")?,
                other => bail!("unknown argument {other}\n\n{HELP}"),
            }
        }
        Ok(settings)
    }
}

fn numbers(list: &str) -> Result<Vec<usize>> {
    list.split(',').map(|number| Ok(number.parse()?)).collect()
}
