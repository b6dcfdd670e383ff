//! Captures the standard output or standard error of a program in a file.
//!
//! Endless output must not fill the disk, and a pipe that is not read blocks the program. The capture therefore reads to the
//! end, keeps the first `limit` bytes, and ends a truncated file with a marker.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const CHUNK_BYTES: usize = 64 * 1024;

/// Reads `from` to its end and copies the first `limit` bytes to `to`.
pub(crate) async fn capture_output(
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
        // A full disk must not block the program, so reading continues after a write error.
        if kept > 0 && written.is_ok() {
            written = to.write_all(&chunk[..kept]).await;
        }
    }
    written?;
    if dropped > 0 {
        let marker = format!("\n[catacloud: output truncated after {limit} bytes, {dropped} bytes dropped]\n");
        to.write_all(marker.as_bytes()).await?;
    }
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::capture_output;

    async fn captured(printed: &[u8], limit: u64) -> String {
        let mut file = Vec::new();
        capture_output(printed, &mut file, limit).await.unwrap();
        String::from_utf8(file).unwrap()
    }

    #[tokio::test]
    async fn capture_truncates_at_the_limit_with_a_marker() {
        assert_eq!(captured(b"", 4).await, "");
        assert_eq!(captured(b"1234", 4).await, "1234");
        let marked = "1234\n[catacloud: output truncated after 4 bytes, 2 bytes dropped]\n";
        assert_eq!(captured(b"123456", 4).await, marked);
    }
}
