//! Random bytes from the kernel, and their text forms.

use std::{fmt::Write, fs::File, io::Read};

use crate::Error;

const SOURCE: &str = "/dev/urandom";
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    File::open(SOURCE).and_then(|mut file| file.read_exact(&mut bytes)).map_err(Error::io("read", SOURCE))?;
    Ok(bytes)
}

/// Returns `N` random bytes as lowercase hexadecimal text.
pub(crate) fn hex<const N: usize>() -> Result<String, Error> {
    Ok(bytes::<N>()?.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Returns a random number below `limit`.
pub(crate) fn below(limit: u16) -> Result<u16, Error> {
    Ok(u16::from_le_bytes(bytes()?) % limit.max(1))
}

/// Returns a Kafka cluster id: 16 bytes as URL-safe base64 without padding. The first byte is zero, so that the id
/// never begins with a dash.
pub(crate) fn kafka_cluster_id() -> Result<String, Error> {
    let mut bytes = bytes::<16>()?;
    bytes[0] = 0;
    let bits = u128::from_be_bytes(bytes);
    let digits = (0..22).map(|digit| {
        // 22 digits of 6 bits hold 132 bits: the last digit has four bits of padding.
        let value = if digit == 21 { bits << 4 } else { bits >> (122 - 6 * digit) };
        char::from(BASE64_URL[(value & 63) as usize])
    });
    Ok(digits.collect())
}

#[cfg(test)]
mod tests {
    use super::{hex, kafka_cluster_id};

    #[test]
    fn hex_has_two_digits_a_byte() {
        let text = hex::<24>().unwrap();
        assert_eq!(text.len(), 48);
        assert!(text.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }

    #[test]
    fn kafka_cluster_id_starts_with_a_letter() {
        let id = kafka_cluster_id().unwrap();
        assert_eq!(id.len(), 22);
        assert!(id.starts_with('A'));
        // Of the last digit only the two upper bits carry data.
        assert!(['A', 'Q', 'g', 'w'].iter().any(|digit| id.ends_with(*digit)));
    }
}
