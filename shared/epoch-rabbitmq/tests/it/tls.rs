//! Over TLS: whom the bus trusts, and what it says when it doesn't.

use std::{fs, path::Path, time::Duration};

use epoch::bus::Bus;
use epoch_rabbitmq::{Error, RabbitBus, RabbitConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{broker::PrivateBroker, support::*};

/// An authority that nobody knows.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes down a certificate for this host, and its key.
fn certify(authority: &CertifiedIssuer<'static, KeyPair>, host: &str, directory: &Path) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    fs::write(directory.join("certificate.pem"), certificate.pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

/// What publishing and consuming say with these settings.
async fn refusals(config: &RabbitConfig) -> [String; 2] {
    let bus = bus(config);
    let consuming = ConsumerTask::start(&bus, Recorder::new("distrustful")).end().await;
    let publishing = bus.publish(&events(&ids(1), 1..=1)).await;
    [consuming.unwrap_err().detail, publishing.unwrap_err().detail]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_trusted_by_its_authority_only() {
    if config().is_none() {
        return;
    }
    let (directory, ours, other) = (tempfile::tempdir().unwrap(), authority("ours"), authority("other"));
    certify(&ours, "localhost", directory.path());
    let broker = PrivateBroker::with_tls(directory.path());
    let url = broker.start();
    assert!(url.starts_with("amqps://"), "{url}");
    let trusting = |pem: &str| RabbitConfig { authorities: Some(pem.to_owned()), ..private(&url) };

    // One among others is enough.
    let config = trusting(&format!("{}{}", other.pem(), ours.pem()));
    let (bus, recorder, published) = (bus(&config), Recorder::new("over_tls"), events(&ids(5), 1..=20));
    let consuming = ConsumerTask::start(&bus, recorder.clone());
    publish(&bus, &published).await;
    recorder.wait_for(published.len()).await;
    consuming.stop().await.unwrap();
    recorder.assert_exactly_once_in_order(&published);

    // Another authority, none but the public ones, and a host that the certificate isn't for.
    let elsewhere = RabbitConfig { url: url.replace("localhost", "127.0.0.1"), ..trusting(&ours.pem()) };
    for (wrong, why) in
        [(trusting(&other.pem()), "UnknownIssuer"), (private(&url), "UnknownIssuer"), (elsewhere, "not valid for name")]
    {
        for refusal in refusals(&wrong).await {
            assert!(refusal.starts_with("the broker's certificate is not accepted"), "{refusal}");
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    // Without TLS there is nothing to be heard there.
    let plain = RabbitConfig { timeout: Duration::from_secs(2), ..private(url.replace("amqps", "amqp")) };
    assert!(self::bus(&plain).publish(&events(&ids(1), 1..=1)).await.is_err());
}

#[test]
fn authorities_that_can_not_be_used_are_refused_at_once() {
    let with = |url: &str, pem: &str| {
        let config = RabbitConfig { authorities: Some(pem.to_owned()), ..RabbitConfig::new(url) };
        RabbitBus::new(config).err()
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "not a certificate", broken] {
        let refused = with("amqps://localhost", pem);
        assert!(matches!(refused, Some(Error::Authorities { .. })), "{pem}: {refused:?}");
    }
    let useless = with("amqp://localhost", &authority("ours").pem());
    assert!(matches!(useless, Some(Error::Address { .. })), "{useless:?}");
    assert!(with("amqps://localhost", &authority("ours").pem()).is_none());
}
