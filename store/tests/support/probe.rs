//! Questions to a store and to the model, that must have the same answers.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_proto::etcdserverpb as pb;
use quorate_store::{Failure, KeyRange, KeyspaceHash, LogPosition, Rejection, Response, Store, StoreView};

use super::chance::Chance;
use super::history::all_keys;
use super::model::{AuthModel, Model, sort};
use super::run::{Verdict, fault, same};
use super::{generate, physical};
use pb::range_request::SortTarget;
use pb::request_op::Request;

/// A rejection is an answer; a fault ends the run.
fn answer<T>(result: Result<T, Failure>) -> Result<Result<T, Rejection>, String> {
    match result {
        Ok(answer) => Ok(Ok(answer)),
        Err(Failure::Rejected(rejection)) => Ok(Err(rejection)),
        Err(Failure::Fault(fault)) => Err(self::fault(fault)),
    }
}

/// A handful of questions, chosen by `seed`.
pub(crate) fn probe(store: &Store, model: &Model, applied: LogPosition, seed: u64) -> Verdict {
    let chance = &mut Chance(seed);
    let reader = store.reader();
    let view = reader.view().map_err(fault)?;
    same(|| "applied".into(), &reader.applied(), &applied)?;
    same(|| "revision".into(), &view.revision(), &model.revision)?;
    same(|| "compacted".into(), &view.compacted(), &model.compacted)?;
    range(&view, model, &generate::range(chance, model))?;
    range(&view, model, &generate::range(chance, model))?;
    let (key, range_end) = (generate::key(chance), generate::range_end(chance));
    count(&view, model, &key, &range_end, generate::revision(chance, model))?;
    match chance.below(8) {
        0 => hash(&view, model, generate::revision(chance, model))?,
        1 => read_only_txn(&view, model, chance)?,
        2 => pieces(&view, model, chance)?,
        3 => physical::bytes(store, model)?,
        4 if store.compaction_done() => drop(physical::at_rest(store, model)?),
        5 => around(store, model)?,
        _ => some_events(&view, model, chance)?,
    }
    Ok(())
}

/// Every revision that can be read, and then some.
pub(crate) fn everything(store: &Store, model: &Model) -> Verdict {
    let view = store.reader().view().map_err(fault)?;
    let (from, until) = all_keys();
    around(store, model)?;
    for revision in model.compacted - 1..=model.revision + 1 {
        let request = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: until.clone(),
            revision,
            ..Default::default()
        };
        range(&view, model, &request)?;
        range(&view, model, &pb::RangeRequest { limit: 2, ..request.clone() })?;
        count(&view, model, b"a\0", b"c", revision)?;
        hash(&view, model, revision)?;
    }
    let own = page(&view, model.compacted, model.revision, &[(from.clone(), until.clone())], usize::MAX)?;
    same(|| "all events".into(), &own, &model.events(model.compacted, model.revision, &[(from, until)]))
}

fn range(view: &StoreView, model: &Model, request: &pb::RangeRequest) -> Verdict {
    same(|| format!("{request:?}"), &answer(view.range(request))?, &model.range(request))
}

fn count(view: &StoreView, model: &Model, key: &[u8], range_end: &[u8], revision: i64) -> Verdict {
    let (key, range_end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(range_end));
    let own = answer(view.count(&KeyRange::new(&key, &range_end), revision))?;
    let request = pb::RangeRequest { key, range_end, revision, count_only: true, ..Default::default() };
    same(|| format!("count {request:?}"), &own, &model.range(&request).map(|response| response.count))
}

fn hash(view: &StoreView, model: &Model, asked: i64) -> Verdict {
    let own = answer(view.hash_kv(asked))?;
    let revision = if asked == 0 { model.revision } else { asked };
    let hash = model.hash(asked).map(|hash| KeyspaceHash { hash, revision, compacted: model.compacted });
    same(|| format!("hash at {asked}"), &own, &hash)
}

/// A txn of ranges: answered from a view, and by the model as any other txn.
fn read_only_txn(view: &StoreView, model: &Model, chance: &mut Chance) -> Verdict {
    let op = |chance: &mut Chance| {
        let range = generate::range(chance, model);
        pb::RequestOp { request: Some(Request::RequestRange(range)) }
    };
    let success = (0..chance.below(3)).map(|_| op(chance)).collect();
    let txn = pb::TxnRequest { success, ..Default::default() };
    let mut calm = model.clone();
    calm.alarms.clear();
    calm.auth = AuthModel::new();
    let command = Some(quorate_proto::log::proposal::Command::Txn(txn.clone()));
    let wanted = calm.proposal(1, &quorate_proto::log::Proposal { command, ..Default::default() });
    same(|| format!("{txn:?}"), &answer(view.read_only_txn(&txn))?.map(Response::Txn), &wanted)
}

/// A range read piece by piece: together all of it, in key order, each piece sorted by the target.
fn pieces(view: &StoreView, model: &Model, chance: &mut Chance) -> Verdict {
    let (limit, bytes_max) = (1 + chance.below(3) as usize, chance.pick(&[0, 5, 1 << 20]));
    let mut request = pb::RangeRequest { limit: 0, sort_order: 0, count_only: false, ..generate::range(chance, model) };
    request.key = generate::key(chance);
    let plain = pb::RangeRequest { keys_only: false, sort_target: 0, ..request.clone() };
    let plain = pb::RangeRequest { min_mod_revision: 0, max_mod_revision: 0, ..plain };
    let wanted = model.range(&pb::RangeRequest { min_create_revision: 0, max_create_revision: 0, ..plain });
    let mut left = match wanted {
        Ok(response) => response.kvs,
        Err(rejection) => {
            let own = answer(view.range_piece(&request, limit, bytes_max))?.map(drop);
            return same(|| format!("piece of {request:?}"), &own, &Err(rejection));
        }
    };
    loop {
        let own = answer(view.range_piece(&request, limit, bytes_max))?.map_err(|rejection| rejection.to_string())?;
        if own.kvs.len() > limit || own.kvs.len() > left.len() || (own.more && own.kvs.is_empty()) {
            return Err(format!("a piece of {} with limit {limit}, {} left: {request:?}", own.kvs.len(), left.len()));
        }
        let mut wanted: Vec<_> = left.drain(..own.kvs.len()).collect();
        let last_key = wanted.last().map(|kv| kv.key.clone());
        sort(&request, &mut wanted);
        for kv in wanted.iter_mut().filter(|_| request.keys_only) {
            kv.value = Bytes::new();
            kv.lease = if request.sort_target() == SortTarget::Value { kv.lease } else { 0 };
        }
        same(|| format!("piece of {limit}, {bytes_max} bytes: {request:?}"), &own.kvs, &wanted)?;
        same(|| format!("last key of a piece: {request:?}"), &own.last_key, &last_key)?;
        same(|| format!("more after a piece: {request:?}"), &own.more, &!left.is_empty())?;
        match last_key {
            Some(last_key) if own.more => request.key = after(&last_key),
            _ => return Ok(()),
        }
    }
}

fn after(key: &[u8]) -> Bytes {
    let mut after = BytesMut::from(key);
    after.put_u8(0);
    after.freeze()
}

fn some_events(view: &StoreView, model: &Model, chance: &mut Chance) -> Verdict {
    let from = chance.within(model.compacted - 1, model.revision + 2);
    let until = chance.within(from.max(0), model.revision + 2);
    let ranges = (0..1 + chance.below(2)).map(|_| (generate::key(chance), generate::range_end(chance)));
    let ranges: Vec<_> = ranges.collect();
    let bytes_max = chance.pick(&[0, 1, 150, 1 << 20]);
    let own = page(view, from, until, &ranges, bytes_max)?;
    same(|| format!("events {from} to {until} of {ranges:?}"), &own, &model.events(from, until, &ranges))
}

type Events = Result<Vec<quorate_store::RevisionEvents>, Rejection>;

/// Events, page after page.
fn page(
    view: &StoreView,
    mut from: i64,
    until: i64,
    ranges: &[(Bytes, Bytes)],
    bytes_max: usize,
) -> Result<Events, String> {
    let ranges: Vec<_> = ranges.iter().map(|(key, range_end)| KeyRange::new(key, range_end)).collect();
    let mut all = Vec::new();
    loop {
        let page = match answer(view.events(from, until, &ranges, bytes_max))? {
            Ok(page) => page,
            Err(rejection) => return Ok(Err(rejection)),
        };
        all.extend(page.revisions);
        if page.next > until {
            return Ok(Ok(all));
        }
        if page.next <= from {
            return Err(format!("a page from {from} goes on at {}", page.next));
        }
        from = page.next;
    }
}

/// All that is not keys: leases, alarms, members, users.
fn around(store: &Store, model: &Model) -> Verdict {
    let reader = store.reader();
    let view = reader.view().map_err(fault)?;
    let mut leases: Vec<_> = model.leases.iter().map(|(id, lease)| (*id, *lease)).collect();
    leases.sort_by_key(|(id, _)| *id as u64);
    same(|| "leases".into(), &view.leases().map_err(fault)?, &leases)?;
    for id in [0, 1, 2, 3, -7, i64::MAX] {
        same(|| format!("keys of lease {id}"), &view.lease_keys(id).map_err(fault)?, &model.lease_keys(id))?;
        same(|| format!("lease {id}"), &view.lease(id).map_err(fault)?, &model.leases.get(&id).copied())?;
        same(|| format!("lease {id}"), &reader.lease(id).map_err(fault)?, &model.leases.get(&id).copied())?;
    }
    for kind in [pb::AlarmType::None, pb::AlarmType::Nospace, pb::AlarmType::Corrupt] {
        same(|| format!("alarms {kind:?}"), &reader.alarms(kind), &model.alarm_list(kind as i32))?;
    }
    let corrupt = model.alarms.iter().any(|(_, kind)| *kind == pb::AlarmType::Corrupt as i32);
    same(|| "corrupt".into(), &view.corrupt(), &if corrupt { Err(Rejection::Corrupt) } else { Ok(()) })?;
    same(|| "members".into(), &reader.members(), &model.members.values().cloned().collect())?;
    for id in 0..6 {
        same(|| format!("member {id} removed"), &reader.member_removed(id), &model.removed.contains(&id))?;
    }
    same(|| "membership".into(), &reader.membership(), &model.membership)?;
    same(|| "cluster version".into(), &reader.cluster_version(), &model.version)?;
    same(|| "downgrade".into(), &reader.downgrade(), &model.downgrade)?;
    same(|| "contradiction".into(), &view.contradiction().map_err(fault)?, &None)?;
    users(&reader.auth(), &model.auth)
}

fn users(own: &quorate_store::auth::AuthState, model: &AuthModel) -> Verdict {
    same(|| "auth".into(), &(own.is_enabled(), own.revision()), &(model.enabled, model.revision))?;
    same(|| "users".into(), &own.user_list().users, &model.users.keys().cloned().collect())?;
    same(|| "roles".into(), &own.role_list().roles, &model.roles.keys().cloned().collect())?;
    for (name, roles) in &model.users {
        let own = own.user(name).map(|user| user.roles.clone());
        same(|| format!("roles of {name}"), &own, &Some(roles.iter().cloned().collect()))?;
    }
    for (name, permissions) in &model.roles {
        let own = own.role(name).map(|role| role.permissions.clone()).unwrap_or_default();
        let mut own: Vec<_> = own.into_iter().map(|it| ((it.key, it.range_end), it.perm_type)).collect();
        own.sort();
        let wanted = permissions.iter().map(|(range, kind)| (range.clone(), *kind)).collect();
        same(|| format!("permissions of {name}"), &own, &wanted)?;
    }
    Ok(())
}
