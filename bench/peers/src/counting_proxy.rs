//! A proxy that counts statements and round trips.
//!
//! `pg_stat_statements` must be loaded at server start, so it is often not available. The proxy counts protocol messages instead: each
//! statement is one Execute or Query message, and each round trip one Sync or Query message.
//!
//! Times are not measured through the proxy.

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

/// The maximum size of a message in bytes. A larger one indicates a parse error.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

#[derive(Debug, Default)]
struct Counts {
    statements: AtomicU64,
    round_trips: AtomicU64,
}

/// A proxy to the server.
pub struct CountingProxy {
    pub port: u16,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

impl CountingProxy {
    pub async fn start(host: &str, port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = listener.local_addr()?.port();
        let counts = Arc::new(Counts::default());
        let server = format!("{host}:{port}");
        let accepting = tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    // Errors are ignored: a connection ends when either side closes it.
                    tokio::spawn(forward(client, server.clone(), Arc::clone(&counts)));
                }
            }
        });
        Ok(Self { port: own, counts, accepting })
    }

    /// Returns the numbers of statements and round trips so far.
    pub fn counted(&self) -> (u64, u64) {
        (self.counts.statements.load(Ordering::SeqCst), self.counts.round_trips.load(Ordering::SeqCst))
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(client: TcpStream, server: String, counts: Arc<Counts>) -> Result<()> {
    let server = TcpStream::connect(server).await.context("connecting to the server")?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let responses = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let counted = count(from_client, to_server, &counts).await;
    responses.abort();
    counted
}

/// Forwards and counts messages. The first message has no type byte; each other one has a type byte and a length.
async fn count(client: tcp::OwnedReadHalf, mut server: tcp::OwnedWriteHalf, counts: &Counts) -> Result<()> {
    let mut client = tokio::io::BufReader::with_capacity(64 * 1024, client);
    let start = client.read_u32().await?;
    server.write_u32(start).await?;
    forward_body(&mut client, &mut server, start).await?;
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
        forward_body(&mut client, &mut server, length).await?;
    }
}

async fn forward_body(
    client: &mut tokio::io::BufReader<tcp::OwnedReadHalf>,
    server: &mut tcp::OwnedWriteHalf,
    length: u32,
) -> Result<()> {
    let rest = usize::try_from(length)?.checked_sub(4).context("invalid message length")?;
    ensure!(rest <= MAX_MESSAGE, "message of {rest} bytes is too long");
    let mut body = vec![0; rest];
    client.read_exact(&mut body).await?;
    server.write_all(&body).await?;
    Ok(())
}
