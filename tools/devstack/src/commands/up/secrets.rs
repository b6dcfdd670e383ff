//! Secrets of the stack, which stay the same for as long as its data does.

use std::{fs, path::Path};

use crate::{Error, checkout, random};

/// The secrets, of a file with mode 0600 and `NAME=value` lines.
pub(super) struct Secrets {
    secret: String,
    admin_key: String,
}

impl Secrets {
    pub(super) fn load_or_create(path: &Path) -> Result<Self, Error> {
        if !path.is_file() {
            let (secret, admin_key) = (random::hex::<32>()?, random::hex::<24>()?);
            let text = format!("CATACLOUD_SECRET={secret}\nCATACLOUD_ADMIN_KEY=cadm_{admin_key}\n");
            checkout::write_private(path, &text)?;
        }
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let value = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            let value = lines.filter(|(other, _)| *other == name).map(|(_, value)| value.to_owned()).next_back();
            value.ok_or_else(|| Error::Failed(format!("{} has no {name}", path.display())))
        };
        Ok(Self { secret: value("CATACLOUD_SECRET")?, admin_key: value("CATACLOUD_ADMIN_KEY")? })
    }

    /// Returns the key with which services sign their tokens.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// Returns the platform administrator's API key.
    pub(super) fn admin_key(&self) -> &str {
        &self.admin_key
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::Secrets;

    #[test]
    fn secrets_are_private_and_stable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets");
        let first = Secrets::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(first.secret().len(), 64);
        assert!(first.admin_key().starts_with("cadm_"));
        let second = Secrets::load_or_create(&path).unwrap();
        assert_eq!((first.secret(), first.admin_key()), (second.secret(), second.admin_key()));
    }
}
