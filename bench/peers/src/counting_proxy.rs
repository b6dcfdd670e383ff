//! Counts what a client says to the server.
//!
//! The problem: `pg_stat_statements` must be loaded when the server starts, and most servers haven't it. A client's statements
//! can be counted on the wire as well: each is one Execute or Query message, and each wait for the server one Sync or Query.
//!
//! Nothing is measured in time through here.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    task::JoinHandle,
};

/// The most bytes of one message; more is a sign that the stream was misread.
const LONGEST: usize = 64 * 1024 * 1024;

#[derive(Debug, Default)]
struct Counts {
    statements: AtomicU64,
    round_trips: AtomicU64,
}

/// A way to the server that counts.
pub struct Wire {
    pub port: u16,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

impl Wire {
    pub async fn to(host: &str, port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = listener.local_addr()?.port();
        let counts = Arc::new(Counts::default());
        let server = format!("{host}:{port}");
        let accepting = tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    // A connection ends when either side does; what it carried is counted.
                    tokio::spawn(carry(client, server.clone(), Arc::clone(&counts)));
                }
            }
        });
        Ok(Self { port: own, counts, accepting })
    }

    /// Statements and round trips so far.
    pub fn counted(&self) -> (u64, u64) {
        (self.counts.statements.load(Ordering::SeqCst), self.counts.round_trips.load(Ordering::SeqCst))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, server: String, counts: Arc<Counts>) -> Result<()> {
    let server = TcpStream::connect(server).await.context("the server")?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let answers = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let counted = count(from_client, to_server, &counts).await;
    answers.abort();
    counted
}

/// Passes messages on. The first has no type; every other begins with one, and its length follows.
async fn count(client: tcp::OwnedReadHalf, mut server: tcp::OwnedWriteHalf, counts: &Counts) -> Result<()> {
    let mut client = tokio::io::BufReader::with_capacity(64 * 1024, client);
    let start = client.read_u32().await?;
    server.write_u32(start).await?;
    pass(&mut client, &mut server, start).await?;
    loop {
        server.flush().await?;
        let kind = client.read_u8().await?;
        let length = client.read_u32().await?;
        match kind {
            b'Q' => {
                counts.statements.fetch_add(1, Ordering::SeqCst);
                counts.round_trips.fetch_add(1, Ordering::SeqCst);
            }
            b'E' => _ = counts.statements.fetch_add(1, Ordering::SeqCst),
            b'S' => _ = counts.round_trips.fetch_add(1, Ordering::SeqCst),
            _ => {}
        }
        server.write_u8(kind).await?;
        server.write_u32(length).await?;
        pass(&mut client, &mut server, length).await?;
    }
}

async fn pass(
    client: &mut tokio::io::BufReader<tcp::OwnedReadHalf>,
    server: &mut tcp::OwnedWriteHalf,
    length: u32,
) -> Result<()> {
    let rest = usize::try_from(length)?.checked_sub(4).context("a length")?;
    ensure!(rest <= LONGEST, "a message of {rest} bytes");
    let mut body = vec![0; rest];
    client.read_exact(&mut body).await?;
    server.write_all(&body).await?;
    Ok(())
}
