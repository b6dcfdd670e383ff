//! TLS settings and certificate errors.
//!
//! Over `amqps`, the bus sends nothing before the broker has presented a valid certificate for the host in the address. It must be
//! signed by a public or a configured authority. There is no setting to disable the check.

use lapin::{
    ErrorKind,
    tcp::OwnedTLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{config::RabbitConfig, error::Error};

/// Checks that the configured authorities are valid certificates and that the address uses TLS.
pub(crate) fn check(config: &RabbitConfig, address: &AMQPUri) -> Result<(), Error> {
    let Some(authorities) = &config.authorities else { return Ok(()) };
    if address.scheme != AMQPScheme::AMQPS {
        return Err(Error::Address { detail: "certificate authorities require an amqps:// address".to_owned() });
    }
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        let certificate = certificate.map_err(|error| Error::Authorities { detail: error.to_string() })?;
        store.add(certificate).map_err(|error| Error::Authorities { detail: error.to_string() })?;
    }
    if store.is_empty() {
        return Err(Error::Authorities { detail: "no certificate found".to_owned() });
    }
    Ok(())
}

/// Returns lapin's TLS settings with the configured authorities. lapin adds the public ones.
pub(crate) fn settings(config: &RabbitConfig) -> OwnedTLSConfig {
    OwnedTLSConfig { identity: None, cert_chain: config.authorities.clone() }
}

/// Converts a rejected certificate, which lapin reports as a broken connection, into [`Error::Certificate`].
pub(crate) fn detect_certificate_error(error: Error) -> Error {
    match error {
        Error::Broker { source, .. } if is_invalid_certificate(&source) => Error::Certificate { source },
        other => other,
    }
}

fn is_invalid_certificate(error: &lapin::Error) -> bool {
    let ErrorKind::IOError(error) = error.kind() else { return false };
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}
