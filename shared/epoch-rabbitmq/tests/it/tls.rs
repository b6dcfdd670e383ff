//! TLS: trusted authorities and certificate errors.

use std::{fs, path::Path, time::Duration};

use epoch::bus::Bus;
use epoch_rabbitmq::{Error, RabbitBus, RabbitConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{broker::PrivateBroker, framing_suite::publish_all, support::*};

/// Creates a private certificate authority.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate for this host and its key into the directory.
fn certify(authority: &CertifiedIssuer<'static, KeyPair>, host: &str, directory: &Path) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    fs::write(directory.join("certificate.pem"), certificate.pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

/// Returns the errors of consuming and publishing with these settings.
async fn connection_errors(config: &RabbitConfig) -> [String; 2] {
    let bus = bus(config);
    let consuming = ConsumerTask::start(&bus, Recorder::new("distrustful")).end().await;
    let publishing = bus.publish(&events(&ids(1), 1..=1)).await;
    [consuming.unwrap_err().detail, publishing.unwrap_err().detail]
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_is_trusted_only_with_its_authority() {
    if config().is_none() {
        return;
    }
    let (directory, ours, other) = (tempfile::tempdir().unwrap(), authority("ours"), authority("other"));
    certify(&ours, "localhost", directory.path());
    let broker = PrivateBroker::with_tls(directory.path());
    let url = broker.start();
    assert!(url.starts_with("amqps://"), "{url}");
    let trusting = |pem: &str| RabbitConfig { authorities: Some(pem.to_owned()), ..private(&url) };

    // The broker's authority may be one of several.
    let config = trusting(&format!("{}{}", other.pem(), ours.pem()));
    let (bus, recorder, published) = (bus(&config), Recorder::new("over_tls"), events(&ids(5), 1..=20));
    let consuming = ConsumerTask::start(&bus, recorder.clone());
    publish_all(&*bus, &published).await;
    recorder.wait_for(published.len()).await;
    consuming.stop().await.unwrap();
    recorder.assert_exactly_once_in_order(&published);

    // Another authority, only the public authorities, and another host than the certificate's.
    let elsewhere = RabbitConfig { url: url.replace("localhost", "127.0.0.1"), ..trusting(&ours.pem()) };
    for (wrong, reason) in
        [(trusting(&other.pem()), "UnknownIssuer"), (private(&url), "UnknownIssuer"), (elsewhere, "not valid for name")]
    {
        for error in connection_errors(&wrong).await {
            assert!(error.starts_with("the broker's certificate is not accepted"), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }

    // The broker does not accept connections without TLS.
    let plain = RabbitConfig { timeout: Duration::from_secs(2), ..private(url.replace("amqps", "amqp")) };
    assert!(self::bus(&plain).publish(&events(&ids(1), 1..=1)).await.is_err());
}

#[test]
fn new_rejects_unusable_authorities() {
    let with = |url: &str, pem: &str| {
        let config = RabbitConfig { authorities: Some(pem.to_owned()), ..RabbitConfig::new(url) };
        RabbitBus::new(config).err()
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "not a certificate", broken] {
        let refused = with("amqps://localhost", pem);
        assert!(matches!(refused, Some(Error::Authorities { .. })), "{pem}: {refused:?}");
    }
    let without_tls = with("amqp://localhost", &authority("ours").pem());
    assert!(matches!(without_tls, Some(Error::Address { .. })), "{without_tls:?}");
    assert!(with("amqps://localhost", &authority("ours").pem()).is_none());
}
