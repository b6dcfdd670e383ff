//! Trust in the broker.
//!
//! The problem: a broker in one's own network has a certificate that no public authority has signed, and that it isn't accepted
//! looks like any other broken connection.
//!
//! The invariant: over `amqps` nothing is said before the broker has shown a certificate for the host in the address, signed by a
//! public authority or by one of those that are configured. Nothing switches this off.

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

/// Makes sure that the configured authorities can be used at this address.
pub(crate) fn check(config: &RabbitConfig, address: &AMQPUri) -> Result<(), Error> {
    let Some(authorities) = &config.authorities else { return Ok(()) };
    if address.scheme != AMQPScheme::AMQPS {
        return Err(Error::Address { detail: "authorities are given, and it is not amqps://".to_owned() });
    }
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        let certificate = certificate.map_err(|error| Error::Authorities { detail: error.to_string() })?;
        store.add(certificate).map_err(|error| Error::Authorities { detail: error.to_string() })?;
    }
    if store.is_empty() {
        return Err(Error::Authorities { detail: "there is no certificate among them".to_owned() });
    }
    Ok(())
}

/// The configured authorities, as lapin wants them; it knows the public ones.
pub(crate) fn settings(config: &RabbitConfig) -> OwnedTLSConfig {
    OwnedTLSConfig { identity: None, cert_chain: config.authorities.clone() }
}

/// Tells a certificate that isn't accepted from a connection that broke.
pub(crate) fn tell_apart(error: Error) -> Error {
    match error {
        Error::Broker { source, .. } if is_about_certificate(&source) => Error::Certificate { source },
        other => other,
    }
}

fn is_about_certificate(error: &lapin::Error) -> bool {
    let ErrorKind::IOError(error) = error.kind() else { return false };
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}
