use epoch::Aggregate;
use uuid::Uuid;

use super::{PlanCatalogue, PlanCommand, PlanDefinition, PlanError};
use crate::{pricing::meter::Meter, sharing::rule::SharingRule};

fn definition(price: &str) -> PlanDefinition {
    let charges = format!(
        r#"[{{"meter":"compute","unit":"s","model":"flat","unit_price":"{price}"}},
        {{"meter":"storage","unit":"GB.h","model":"volume","tiers":[{{"up_to":"5","unit_price":"1","flat_fee":"2"}},{{"up_to":null,"unit_price":"0.5"}}]}}]"#
    );
    PlanDefinition {
        name: "Team".to_owned(),
        currency: "EUR".to_owned(),
        split: SharingRule::UnsharedOnly,
        charges: serde_json::from_str(&charges).unwrap(),
        minimum: Some("5".parse().unwrap()),
        tax_percent: Some("21".parse().unwrap()),
    }
}

fn apply(plan: &mut PlanCatalogue, command: &PlanCommand) -> Result<usize, PlanError> {
    let events = plan.decide(command)?;
    events.iter().for_each(|event| plan.evolve(event));
    Ok(events.len())
}

#[test]
fn published_version_never_changes() {
    let (mut plan, id) = (PlanCatalogue::default(), Uuid::now_v7());
    assert_eq!(plan.version(id, 1), Err(PlanError::NotFound));
    apply(&mut plan, &PlanCommand::Publish(definition("1"))).unwrap();
    let first = plan.version(id, 1).unwrap();
    apply(&mut plan, &PlanCommand::Publish(definition("2"))).unwrap();
    assert_eq!(plan.version(id, 1).unwrap(), first);
    assert_ne!(plan.version(id, 2).unwrap().charges[&Meter::Compute], first.charges[&Meter::Compute]);
    assert_eq!(first.charges, definition("1").plan(first.key.clone()).unwrap().charges);
    assert_eq!(
        (first.split, first.minimum.to_string(), first.tax_percent.to_string()),
        (SharingRule::UnsharedOnly, "5".to_owned(), "21".to_owned())
    );
    for version in [0, 3] {
        assert_eq!(plan.version(id, version), Err(PlanError::NoSuchVersion { version }));
    }
}

#[test]
fn unchanged_definition_is_not_published_again() {
    let mut plan = PlanCatalogue::default();
    let mut publish_if_changed = |price| apply(&mut plan, &PlanCommand::PublishIfChanged(definition(price)));
    assert_eq!(
        (publish_if_changed("1"), publish_if_changed("1.00"), publish_if_changed("2"), publish_if_changed("2")),
        (Ok(1), Ok(0), Ok(1), Ok(0))
    );
    assert_eq!(
        (publish_if_changed("1"), plan.versions().len()),
        (Ok(1), 3),
        "a repeated price after another is a new version"
    );
}

#[test]
fn retired_plan_stays_readable() {
    let (mut plan, id) = (PlanCatalogue::default(), Uuid::now_v7());
    let retire = PlanCommand::Retire { reason: "sold out".to_owned() };
    assert_eq!(apply(&mut plan, &retire), Err(PlanError::NotFound));
    apply(&mut plan, &PlanCommand::Publish(definition("1"))).unwrap();
    assert_eq!((plan.require_open(), apply(&mut plan, &retire), apply(&mut plan, &retire)), (Ok(()), Ok(1), Ok(0)));
    assert!(plan.version(id, 1).is_ok());
    let retired = PlanError::Retired { reason: "sold out".to_owned() };
    assert_eq!(plan.require_open(), Err(retired.clone()));
    for command in [PlanCommand::Publish(definition("1")), PlanCommand::PublishIfChanged(definition("1"))] {
        assert_eq!(apply(&mut plan, &command), Err(retired.clone()));
    }
}

#[test]
fn invalid_definition_is_not_published() {
    let rejection = |change: fn(&mut PlanDefinition)| {
        let mut definition = definition("1");
        change(&mut definition);
        PlanCatalogue::default().decide(&PlanCommand::Publish(definition)).unwrap_err().to_string()
    };
    assert_eq!(rejection(|plan| plan.name = " ".into()), "name: is empty");
    assert!(rejection(|plan| plan.currency = "EURO".into()).starts_with("currency: \"EURO\""));
    assert!(rejection(|plan| plan.minimum = Some("0.001".parse().unwrap())).starts_with("minimum: 0.001 has more"));
    assert_eq!(rejection(|plan| plan.tax_percent = Some(101.into())), "tax_percent: is more than 100");
    assert!(rejection(|plan| plan.charges[1].tiers = None).starts_with("charges[1].tiers: is missing"));
}
