//! The contestants of one row, each with a new database that is dropped after the row.

use std::sync::Arc;

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::{
    contestant::Contestant,
    contestants,
    counting_proxy::CountingProxy,
    database::{Database, READ_MODEL},
    report::{Side, Table},
};

pub struct Entry {
    key: String,
    pub contestant: Arc<dyn Contestant>,
    pub database: Database,
}

impl Entry {
    pub async fn open(server: &str, name: &str) -> Result<Self> {
        let database = Database::create(server).await?;
        let opened = contestants::open(name, &database.address()).await;
        let contestant = opened.with_context(|| format!("opening {name}"))?;
        sqlx::raw_sql(READ_MODEL).execute(&database.control).await?;
        Ok(Self { key: name.to_owned(), contestant, database })
    }

    /// Returns the contestant's index in a table.
    pub fn place(&self, table: &mut Table) -> usize {
        let side = match (self.key.as_str(), self.contestant.ours()) {
            ("epoch", _) => Side::Ours,
            (_, true) => Side::Reference,
            _ => Side::Peer,
        };
        table.place(self.contestant.name(), side)
    }

    /// Creates aggregates with `depth` events each: one through the contestant's commands, the others as copies of it.
    pub async fn seed(&self, aggregates: usize, depth: usize) -> Result<Vec<Uuid>> {
        let template = Uuid::now_v7();
        let ids: Vec<Uuid> = (0..aggregates).map(|_| Uuid::now_v7()).collect();
        let mut missing = depth;
        while missing > 0 {
            let events = missing.min(100);
            self.contestant.append(template, events, depth).await?;
            missing -= events;
        }
        let names: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        for statement in self.contestant.copies() {
            let copy = sqlx::query(*statement).bind(&names).bind(template.to_string());
            copy.execute(&self.database.control).await.context("copying the seed")?;
        }
        self.analyze().await?;
        Ok(ids)
    }

    /// Updates the statistics, as autovacuum would do some minutes later.
    pub async fn analyze(&self) -> Result<()> {
        sqlx::raw_sql("vacuum analyze").execute(&self.database.control).await?;
        Ok(())
    }

    /// Connects the same contestant through the proxy that counts statements.
    pub async fn connect_counted(&self) -> Result<(Arc<dyn Contestant>, CountingProxy)> {
        let mut address = self.database.address();
        let proxy = CountingProxy::start(&address.host, address.port).await?;
        address.host = "127.0.0.1".to_owned();
        address.port = proxy.port;
        Ok((contestants::open(&self.key, &address).await?, proxy))
    }
}

pub struct Field {
    pub entries: Vec<Entry>,
}

impl Field {
    pub async fn open(server: &str, names: &[String]) -> Result<Self> {
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            entries.push(Entry::open(server, name).await?);
        }
        Ok(Self { entries })
    }

    pub async fn close(self) {
        for entry in self.entries {
            drop(entry.contestant);
            entry.database.drop().await;
        }
    }
}
