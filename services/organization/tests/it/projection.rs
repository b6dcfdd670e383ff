//! The read model equals the folded streams, for any commands and any partition into batches.

use std::{collections::BTreeMap, sync::Arc};

use epoch::{CommandContext, ExecuteError, Position, gate::DeliverySource, handler::Subscription, store::Streamer};
use epoch_postgres::ProjectionHandler;
use futures::TryStreamExt;
use organization::{
    domain::{MemberRole, Name, OrganizationCommand},
    projections::Organizations,
};
use proptest::prelude::*;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::support::{Events, Process, tables};

const ORGANIZATIONS: usize = 3;

fn command() -> impl Strategy<Value = OrganizationCommand> {
    let user = || (1..4_u128).prop_map(Uuid::from_u128);
    let role = || prop::sample::select(MemberRole::ALL.to_vec());
    let authority = MemberRole::Owner;
    prop_oneof![
        "[a-c]".prop_map(|text| OrganizationCommand::Rename { name: Name::parse(&text).unwrap() }),
        (user(), role()).prop_map(move |(user_id, role)| OrganizationCommand::AddMember { user_id, role, authority }),
        (user(), role()).prop_map(move |(user_id, role)| OrganizationCommand::ChangeMemberRole {
            user_id,
            role,
            authority
        }),
        user().prop_map(move |user_id| OrganizationCommand::RemoveMember { user_id, authority }),
        (-9..9_i64).prop_map(|delta_bytes| OrganizationCommand::ChangeStorageUsage { delta_bytes }),
    ]
}

type Model = BTreeMap<Uuid, (i64, i64, BTreeMap<Uuid, String>)>;

async fn projected(pool: &PgPool) -> (Model, Vec<String>) {
    let mut model = Model::new();
    let mut names = Vec::new();
    for row in sqlx::query("select * from organizations order by id").fetch_all(pool).await.unwrap() {
        model.insert(row.get("id"), (row.get("version"), row.get("storage_bytes"), BTreeMap::new()));
        names.push(row.get("name"));
    }
    for row in sqlx::query("select * from members").fetch_all(pool).await.unwrap() {
        let (organization, user): (Uuid, Uuid) = (row.get("organization_id"), row.get("user_id"));
        model.get_mut(&organization).unwrap().2.insert(user, row.get("role"));
    }
    (model, names)
}

async fn folded(process: &Process, ids: &[Uuid]) -> (Model, Vec<String>) {
    let mut model = Model::new();
    let mut names = Vec::new();
    for id in ids {
        let loaded = process.organizations.load(*id).await.unwrap();
        let members = loaded.state.members().iter().map(|(user, role)| (*user, role.as_str().to_owned()));
        let version = epoch_postgres::version_number(loaded.version);
        model.insert(*id, (version, loaded.state.storage_bytes(), members.collect()));
        let state = serde_json::to_value(&*loaded.state).unwrap();
        names.push(state["name"].as_str().unwrap().to_owned());
    }
    (model, names)
}

async fn check_read_model(commands: Vec<(usize, OrganizationCommand)>, pieces: Vec<(usize, usize)>) {
    let (database, pool) = tables().await;
    let process = Process::on(&pool);
    let ids: Vec<Uuid> = (0..ORGANIZATIONS).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        process.create(*id).await;
    }
    for (organization, command) in commands {
        match process.organizations.execute(ids[organization], &command, &CommandContext::new()).await {
            Ok(_) | Err(ExecuteError::Rejected(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let log: Events = process.store.stream_all(&[], Position::START).map_ok(Arc::new).try_collect().await.unwrap();
    let gate = process.subscription(ProjectionHandler(Organizations));
    for (start, length) in pieces {
        let start = start % log.len();
        gate.deliver(&log[start..(start + length).min(log.len())], DeliverySource::Bus).await.unwrap();
    }
    gate.deliver(&log, DeliverySource::Bus).await.unwrap();
    assert_eq!(projected(&pool).await, folded(&process, &ids).await);
    database.drop().await;
}

#[test]
fn read_model_equals_folded_streams() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let commands = prop::collection::vec((0..ORGANIZATIONS, command()), 0..60);
    let pieces = prop::collection::vec((0..80_usize, 1..30_usize), 0..6);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(16));
    let result = runner.run(&(commands, pieces), |(commands, pieces)| {
        runtime.block_on(check_read_model(commands, pieces));
        Ok(())
    });
    result.unwrap();
}
