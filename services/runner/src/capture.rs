//! What a program prints, into a file.
//!
//! The problem: a program that prints without end would fill the disk, and one whose pipe isn't read stands still.
//! The invariant: everything is read; the first `limit` bytes are kept; a file that lacks something ends by saying so.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const CHUNK_BYTES: usize = 64 * 1024;

/// Copies `from` to `to` up to `limit` bytes, and reads on to the end.
pub(crate) async fn capture(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limit: u64,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = limit;
    let mut dropped: u64 = 0;
    let mut written = Ok(());
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        let kept = usize::try_from(left).unwrap_or(usize::MAX).min(read);
        left -= kept as u64;
        dropped += (read - kept) as u64;
        // A full disk must not stop the program, so reading goes on.
        if kept > 0 && written.is_ok() {
            written = to.write_all(&chunk[..kept]).await;
        }
    }
    written?;
    if dropped > 0 {
        let marker = format!("\n[catacloud: {dropped} more bytes were dropped after the first {limit}]\n");
        to.write_all(marker.as_bytes()).await?;
    }
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::capture;

    async fn captured(printed: &[u8], limit: u64) -> String {
        let mut file = Vec::new();
        capture(printed, &mut file, limit).await.unwrap();
        String::from_utf8(file).unwrap()
    }

    #[tokio::test]
    async fn keeps_all_up_to_the_limit_and_marks_what_is_missing() {
        assert_eq!(captured(b"", 4).await, "");
        assert_eq!(captured(b"1234", 4).await, "1234");
        let marked = "1234\n[catacloud: 2 more bytes were dropped after the first 4]\n";
        assert_eq!(captured(b"123456", 4).await, marked);
    }
}
