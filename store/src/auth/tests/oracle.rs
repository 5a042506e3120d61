//! The checker against a naive one: no merging, no order, one key after the other, plain recursion.
//!
//! Whether permissions cover a range is decided at few keys. Permissions hold their first key and not their end; so a
//! part of the range that nobody granted begins at the first key of the range, or at the end of some permission.

use proptest::prelude::*;
use quorate_proto::etcdserverpb::request_op::Request;

use super::*;

type Leases = BTreeMap<i64, Vec<Bytes>>;

fn holds(permission: &authpb::Permission, wanted: Type, key: &[u8]) -> bool {
    let kind = permission.perm_type();
    let (from, end) = (permission.key.as_ref(), permission.range_end.as_ref());
    (kind == wanted || kind == Type::Readwrite)
        && if end.is_empty() { key == from } else { key >= from && (end == b"\0" || key < end) }
}

fn naive_range(granted: &[authpb::Permission], wanted: Type, key: &[u8], range_end: &[u8]) -> bool {
    let mut decisive = vec![key.to_vec()];
    if !range_end.is_empty() {
        let ends = granted.iter().map(|permission| match permission.range_end.as_ref() {
            [] => [permission.key.as_ref(), b"\0"].concat(),
            end => end.to_vec(),
        });
        decisive.extend(ends.filter(|end| &end[..] > key && (range_end == b"\0" || &end[..] < range_end)));
    }
    decisive.iter().all(|key| granted.iter().any(|permission| holds(permission, wanted, key)))
}

fn naive_put(granted: &[authpb::Permission], leases: &Leases, put: &pb::PutRequest) -> bool {
    let attached = leases.get(&put.lease).map(Vec::as_slice).unwrap_or_default();
    naive_range(granted, Type::Write, &put.key, b"")
        && (!put.prev_kv || naive_range(granted, Type::Read, &put.key, b""))
        && attached.iter().all(|key| naive_range(granted, Type::Write, key, b""))
}

fn naive_delete(granted: &[authpb::Permission], delete: &pb::DeleteRangeRequest) -> bool {
    naive_range(granted, Type::Write, &delete.key, &delete.range_end)
        && (!delete.prev_kv || naive_range(granted, Type::Read, &delete.key, &delete.range_end))
}

fn naive_txn(granted: &[authpb::Permission], leases: &Leases, txn: &pb::TxnRequest) -> bool {
    txn.compare.iter().all(|compare| naive_range(granted, Type::Read, &compare.key, &compare.range_end))
        && txn.success.iter().chain(&txn.failure).all(|operation| match &operation.request {
            Some(Request::RequestRange(range)) => naive_range(granted, Type::Read, &range.key, &range.range_end),
            Some(Request::RequestPut(put)) => naive_put(granted, leases, put),
            Some(Request::RequestDeleteRange(delete)) => naive_delete(granted, delete),
            Some(Request::RequestTxn(inner)) => naive_txn(granted, leases, inner),
            None => true,
        })
}

/// Few and close together, so that ranges overlap, touch and miss by one.
pub(super) fn some_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&b"\0ab\xff"[..]), 1..=2)
}

pub(super) fn some_end() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![2 => Just(Vec::new()), 2 => Just(vec![0]), 5 => some_key()]
}

pub(super) fn some_permission() -> impl Strategy<Value = authpb::Permission> {
    let kind = prop::sample::select(vec![Type::Read, Type::Write, Type::Readwrite, Type::Readwrite]);
    (kind, some_key(), some_end()).prop_map(|(kind, key, range_end)| permission(kind, &key, &range_end))
}

/// As a grant lets it in.
fn some_grantable() -> impl Strategy<Value = authpb::Permission> {
    some_permission().prop_filter("a range that crosses", |permission| {
        permission.range_end.is_empty() || permission.range_end == b"\0"[..] || permission.key < permission.range_end
    })
}

fn some_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (some_key(), some_end()).prop_map(|(key, end)| Request::RequestRange(range(&key, &end))),
        (some_key(), 0..4_i64, prop::bool::weighted(0.3))
            .prop_map(|(key, lease, prev_kv)| Request::RequestPut(pb::PutRequest { lease, prev_kv, ..put(&key) })),
        (some_key(), some_end(), prop::bool::weighted(0.3)).prop_map(|(key, end, prev_kv)| {
            Request::RequestDeleteRange(pb::DeleteRangeRequest { prev_kv, ..delete(&key, &end) })
        }),
    ]
}

fn some_branch(request: impl Strategy<Value = Request>) -> impl Strategy<Value = Vec<pb::RequestOp>> {
    prop::collection::vec(request.prop_map(operation), 0..=2)
}

fn some_compares() -> impl Strategy<Value = Vec<pb::Compare>> {
    prop::collection::vec((some_key(), some_end()).prop_map(|(key, end)| compare(&key, &end)), 0..=1)
}

fn txn((compare, success, failure): (Vec<pb::Compare>, Vec<pb::RequestOp>, Vec<pb::RequestOp>)) -> pb::TxnRequest {
    pb::TxnRequest { compare, success, failure }
}

fn some_txn() -> impl Strategy<Value = pb::TxnRequest> {
    let leaf = (some_compares(), some_branch(some_request()), some_branch(some_request())).prop_map(txn);
    leaf.prop_recursive(8, 24, 3, |inner| {
        let request = prop_oneof![3 => inner.prop_map(Request::RequestTxn), 1 => some_request()].boxed();
        (some_compares(), some_branch(request.clone()), some_branch(request)).prop_map(txn)
    })
}

fn some_leases() -> impl Strategy<Value = Leases> {
    prop::collection::btree_map(1..4_i64, prop::collection::vec(some_key().prop_map(Bytes::from), 0..3), 0..3)
}

/// `alice` holds each of these roles.
fn member_of(roles: &[Vec<authpb::Permission>], leases: &Leases) -> Member {
    let mut member = Member::default();
    member.user("root", &["root"]);
    member.user("alice", &[]);
    for (number, permissions) in roles.iter().enumerate() {
        let name = format!("role{number}");
        member.role(&name, permissions);
        member.run(|auth, overlay| auth.user_grant_role(&grant_role("alice", &name), overlay)).unwrap();
    }
    member.enable();
    for (lease, keys) in leases {
        for key in keys {
            member.disk.attach(*lease, key);
        }
    }
    member
}

/// What the roles hold in the end: the last grant of a range in a role is the one that counts.
fn granted(roles: &[Vec<authpb::Permission>]) -> Vec<authpb::Permission> {
    let mut out = Vec::new();
    for role in roles {
        let last: BTreeMap<_, _> = role.iter().map(|own| ((&own.key, &own.range_end), own)).collect();
        out.extend(last.into_values().cloned());
    }
    out
}

fn some_roles() -> impl Strategy<Value = Vec<Vec<authpb::Permission>>> {
    prop::collection::vec(prop::collection::vec(some_grantable(), 0..6), 0..4)
}

fn answer(yes: bool) -> Result<(), Rejection> {
    if yes { Ok(()) } else { Err(Rejection::PermissionDenied) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranges_are_judged_as_the_naive_checker_does(roles in some_roles(), key in some_key(), end in some_end()) {
        let (member, granted) = (member_of(&roles, &Leases::new()), granted(&roles));
        prop_assert_eq!(member.may_read("alice", &key, &end), naive_range(&granted, Type::Read, &key, &end));
        prop_assert_eq!(member.may_write("alice", &key, &end), naive_range(&granted, Type::Write, &key, &end));
    }

    #[test]
    fn transactions_are_judged_as_the_naive_checker_does(
        roles in some_roles(),
        leases in some_leases(),
        txns in prop::collection::vec(some_txn(), 4),
    ) {
        let (member, granted) = (member_of(&roles, &leases), granted(&roles));
        for txn in &txns {
            let naive = naive_txn(&granted, &leases, txn);
            prop_assert_eq!(member.check("alice", Access::Txn(txn)), answer(naive));
            prop_assert_eq!(member.check("root", Access::Txn(txn)), Ok(()));
            prop_assert_eq!(member.check_at("", 0, Access::Txn(txn)), Err(Rejection::UserEmpty));
        }
    }

    #[test]
    fn requests_are_judged_as_the_naive_checker_does(
        roles in some_roles(),
        leases in some_leases(),
        requests in prop::collection::vec(some_request(), 8),
    ) {
        let (member, granted) = (member_of(&roles, &leases), granted(&roles));
        for request in &requests {
            let keys;
            let (access, naive) = match request {
                Request::RequestRange(range) => {
                    keys = keys_of(&range.key, &range.range_end);
                    (Access::Range(&keys), naive_range(&granted, Type::Read, &range.key, &range.range_end))
                }
                Request::RequestPut(put) => (Access::Put(put), naive_put(&granted, &leases, put)),
                Request::RequestDeleteRange(delete) => (Access::DeleteRange(delete), naive_delete(&granted, delete)),
                Request::RequestTxn(txn) => (Access::Txn(txn), naive_txn(&granted, &leases, txn)),
            };
            prop_assert_eq!(member.check("alice", access), answer(naive));
        }
        for lease in 0..4 {
            let attached = leases.get(&lease).map(Vec::as_slice).unwrap_or_default();
            for (access, wanted) in [(Access::LeaseWrite(lease), Type::Write), (Access::LeaseRead(lease), Type::Read)] {
                let naive = attached.iter().all(|key| naive_range(&granted, wanted, key, b""));
                prop_assert_eq!(member.check("alice", access), answer(naive));
            }
        }
    }
}
