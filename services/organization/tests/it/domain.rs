//! Decisions of the organization aggregate.

use std::collections::BTreeMap;

use contracts::organization::{
    MemberAdded, MemberRemoved, MemberRoleChanged, OrganizationCreated, OrganizationEvent, OrganizationRenamed,
    Role as ContractRole, StorageUsageChanged,
};
use epoch::{
    Aggregate,
    testkit::{Given, given},
};
use organization::domain::{MAX_MEMBERS, MemberRole, Name, Organization, OrganizationCommand, OrganizationError};
use proptest::prelude::*;
use uuid::Uuid;

const ADA: Uuid = Uuid::from_u128(1);
const BOB: Uuid = Uuid::from_u128(2);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn created() -> Vec<OrganizationEvent> {
    vec![
        OrganizationCreated { name: "Acme".into() }.into(),
        MemberAdded { user_id: ADA, role: ContractRole::Owner }.into(),
    ]
}

fn acme(more: impl IntoIterator<Item = OrganizationEvent>) -> Given<Organization> {
    given(created().into_iter().chain(more))
}

fn bob(role: ContractRole) -> OrganizationEvent {
    MemberAdded { user_id: BOB, role }.into()
}

fn add(user_id: Uuid, role: MemberRole, authority: MemberRole) -> OrganizationCommand {
    OrganizationCommand::AddMember { user_id, role, authority }
}

fn change(user_id: Uuid, role: MemberRole, authority: MemberRole) -> OrganizationCommand {
    OrganizationCommand::ChangeMemberRole { user_id, role, authority }
}

fn remove(user_id: Uuid, authority: MemberRole) -> OrganizationCommand {
    OrganizationCommand::RemoveMember { user_id, authority }
}

fn store(delta_bytes: i64) -> OrganizationCommand {
    OrganizationCommand::ChangeStorageUsage { delta_bytes }
}

#[test]
fn create_adds_owner_once() {
    let create = OrganizationCommand::Create { name: name(" Acme "), owner: ADA };
    let acme = given::<Organization>([]).when(&create).then(created());
    acme.when(&create).then_rejected(|error| *error == OrganizationError::AlreadyExists);
}

#[test]
fn missing_organization_rejects_commands() {
    let commands = [
        OrganizationCommand::Rename { name: name("Acme") },
        add(BOB, MemberRole::Viewer, MemberRole::Owner),
        change(BOB, MemberRole::Viewer, MemberRole::Owner),
        remove(BOB, MemberRole::Owner),
        store(1),
        store(0),
    ];
    for command in &commands {
        given::<Organization>([]).when(command).then_rejected(|error| *error == OrganizationError::NotFound);
    }
}

#[test]
fn rename_to_present_name_is_no_op() {
    let acme = acme([]).when(&OrganizationCommand::Rename { name: name("Acme") }).then_nothing();
    let rename = OrganizationCommand::Rename { name: name("Acme & Daughters") };
    acme.when(&rename)
        .then([OrganizationRenamed { name: "Acme & Daughters".into() }.into()])
        .when(&rename)
        .then_nothing();
}

#[test]
fn member_is_added_changed_and_removed() {
    acme([])
        .when(&add(BOB, MemberRole::Viewer, MemberRole::Admin))
        .then([bob(ContractRole::Viewer)])
        .when(&change(BOB, MemberRole::Viewer, MemberRole::Admin))
        .then_nothing()
        .when(&change(BOB, MemberRole::Admin, MemberRole::Admin))
        .then([MemberRoleChanged { user_id: BOB, role: ContractRole::Admin }.into()])
        .when(&remove(BOB, MemberRole::Admin))
        .then([MemberRemoved { user_id: BOB }.into()])
        .when(&remove(BOB, MemberRole::Admin))
        .then_rejected(|error| *error == OrganizationError::NotMember { user_id: BOB });
}

#[test]
fn duplicate_member_is_rejected() {
    acme([])
        .when(&add(ADA, MemberRole::Viewer, MemberRole::Owner))
        .then_rejected(|error| *error == OrganizationError::AlreadyMember { user_id: ADA });
}

#[test]
fn last_owner_cannot_leave() {
    let last = |error: &OrganizationError| *error == OrganizationError::LastOwner { user_id: ADA };
    let admin = || bob(ContractRole::Admin);
    acme([admin()]).when(&remove(ADA, MemberRole::Owner)).then_rejected(last);
    acme([admin()]).when(&change(ADA, MemberRole::Admin, MemberRole::Owner)).then_rejected(last);
    acme([admin()]).when(&change(ADA, MemberRole::Owner, MemberRole::Owner)).then_nothing();
    acme([bob(ContractRole::Owner)])
        .when(&remove(ADA, MemberRole::Owner))
        .then([MemberRemoved { user_id: ADA }.into()])
        .when(&remove(BOB, MemberRole::Owner))
        .then_rejected(|error| *error == OrganizationError::LastOwner { user_id: BOB });
}

#[test]
fn role_above_authority_is_rejected() {
    let above = |error: &OrganizationError| {
        *error == OrganizationError::AboveAuthority { role: MemberRole::Owner, authority: MemberRole::Admin }
    };
    acme([]).when(&add(BOB, MemberRole::Owner, MemberRole::Admin)).then_rejected(above);
    acme([bob(ContractRole::Admin)]).when(&change(BOB, MemberRole::Owner, MemberRole::Admin)).then_rejected(above);
    acme([bob(ContractRole::Owner)]).when(&change(BOB, MemberRole::Viewer, MemberRole::Admin)).then_rejected(above);
    acme([bob(ContractRole::Owner)]).when(&remove(BOB, MemberRole::Admin)).then_rejected(above);
}

#[test]
fn member_limit_is_enforced() {
    let member = |number: usize| MemberAdded { user_id: Uuid::from_u128(number as u128), role: ContractRole::Viewer };
    let full = acme((2..=MAX_MEMBERS).map(|number| member(number).into()));
    assert_eq!(full.state().members().len(), MAX_MEMBERS);
    full.when(&add(Uuid::max(), MemberRole::Viewer, MemberRole::Owner))
        .then_rejected(|error| *error == OrganizationError::TooManyMembers);
}

#[test]
fn storage_total_may_be_negative() {
    let changed = |delta_bytes, total_bytes| StorageUsageChanged { delta_bytes, total_bytes }.into();
    acme([])
        .when(&store(0))
        .then_nothing()
        .when(&store(5))
        .then([changed(5, 5)])
        .when(&store(-8))
        .then([changed(-8, -3)])
        .when(&store(i64::MIN))
        .then_rejected(|error| {
            *error == OrganizationError::StorageOutOfRange { total_bytes: -3, delta_bytes: i64::MIN }
        });
}

fn role() -> impl Strategy<Value = MemberRole> {
    prop::sample::select(MemberRole::ALL.to_vec())
}

fn command() -> impl Strategy<Value = OrganizationCommand> {
    let user = || (1..5_u128).prop_map(Uuid::from_u128);
    prop_oneof![
        1 => user().prop_map(|owner| OrganizationCommand::Create { name: name("Acme"), owner }),
        1 => "[a-c]".prop_map(|text| OrganizationCommand::Rename { name: name(&text) }),
        4 => (user(), role(), role()).prop_map(|(user, role, authority)| add(user, role, authority)),
        4 => (user(), role(), role()).prop_map(|(user, role, authority)| change(user, role, authority)),
        4 => (user(), role()).prop_map(|(user, authority)| remove(user, authority)),
        2 => any::<i64>().prop_map(store),
        2 => (-3..3_i64).prop_map(store),
    ]
}

/// Returns the roles that a command grants and revokes, and its authority.
fn affected_roles(
    before: &BTreeMap<Uuid, MemberRole>,
    command: &OrganizationCommand,
) -> Option<(Vec<MemberRole>, MemberRole)> {
    let present = |user: &Uuid| before.get(user).copied().into_iter().collect::<Vec<_>>();
    match command {
        OrganizationCommand::AddMember { role, authority, .. } => Some((vec![*role], *authority)),
        OrganizationCommand::ChangeMemberRole { user_id, role, authority } => {
            Some(([present(user_id), vec![*role]].concat(), *authority))
        }
        OrganizationCommand::RemoveMember { user_id, authority } => Some((present(user_id), *authority)),
        _ => None,
    }
}

proptest! {
    #[test]
    fn random_commands_keep_owner_and_storage_total(commands in prop::collection::vec(command(), 0..60)) {
        let mut state = Organization::default();
        let mut stored = 0_i128;
        for command in &commands {
            let before = state.members().clone();
            let Ok(events) = state.decide(command) else { continue };
            for event in &events {
                if let OrganizationEvent::StorageUsageChanged(changed) = event {
                    stored += i128::from(changed.delta_bytes);
                }
                state.evolve(event);
            }
            if let Some((roles, authority)) = affected_roles(&before, command) && !events.is_empty() {
                prop_assert!(roles.iter().all(|role| *role <= authority), "{command:?}");
            }
            if !state.exists() {
                prop_assert_eq!(&state, &Organization::default());
                continue;
            }
            prop_assert!(state.members().values().any(|role| *role == MemberRole::Owner), "{command:?}");
            prop_assert_eq!(i128::from(state.storage_bytes()), stored);
        }
    }
}
