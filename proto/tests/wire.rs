//! What goes over the wire is etcd's, number for number.
//!
//! wire.txt was printed by a Go program from the descriptors compiled into etcd's own modules
//! (go.etcd.io/etcd/{api,server}/v3 v3.7.3, google.golang.org/grpc v1.83.2), so that it knows nothing of our files.
//! Sorted; one line a message, field, enum value and method.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use quorate_proto::{FILE_DESCRIPTOR_SET, authpb, etcdserverpb as pb, health, mvccpb};

const GOLDEN: &str = include_str!("wire.txt");
const OURS: &str = "quorate.";

#[test]
fn every_number_is_etcds() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut ours = BTreeSet::new();
    for file in set.file.iter().filter(|file| !file.package().starts_with(OURS)) {
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        file.message_type.iter().for_each(|message| describe_message(&mut ours, file.package(), message));
        file.enum_type.iter().for_each(|it| describe_enum(&mut ours, file.package(), it));
        for service in &file.service {
            for method in &service.method {
                let stream = |on: bool| if on { "stream " } else { "" };
                ours.insert(format!(
                    "{}.{}/{} = {}{} -> {}{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type().trim_start_matches('.'),
                    stream(method.server_streaming()),
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
    }
    let theirs: BTreeSet<String> = GOLDEN.lines().map(str::to_owned).collect();
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && extra.is_empty(), "etcd has, we lack: {missing:#?}\nwe have, etcd lacks: {extra:#?}");
}

fn describe_message(lines: &mut BTreeSet<String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("{name} = message"));
    for field in &message.field {
        lines.insert(format!("{name}.{} = {} {}", field.name(), field.number(), describe_kind(message, field)));
    }
    message.enum_type.iter().for_each(|it| describe_enum(lines, &name, it));
    message.nested_type.iter().for_each(|it| describe_message(lines, &name, it));
}

fn describe_enum(lines: &mut BTreeSet<String>, scope: &str, it: &EnumDescriptorProto) {
    for value in &it.value {
        lines.insert(format!("{scope}.{}.{} = {} enum-value", it.name(), value.name(), value.number()));
    }
}

fn describe_kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    if field.label() == Label::Repeated {
        return format!("repeated {kind}");
    }
    if field.proto3_optional() {
        return format!("optional {kind}");
    }
    match field.oneof_index {
        Some(index) => format!("{kind} oneof {}", message.oneof_decl[index as usize].name()),
        None => kind,
    }
}

#[track_caller]
fn check<M: Message + Default + PartialEq + std::fmt::Debug>(message: M, golden: &[u8]) {
    assert_eq!(message.encode_to_vec(), golden);
    assert_eq!(M::decode(golden), Ok(message));
}

#[test]
fn put_request_in_bytes() {
    let put = pb::PutRequest {
        key: Bytes::from_static(b"foo"),
        value: Bytes::from_static(b"bar"),
        lease: 300,
        prev_kv: true,
        ..Default::default()
    };
    check(put, b"\x0a\x03foo\x12\x03bar\x18\xac\x02\x20\x01");
}

#[test]
fn compare_holds_its_range_end_at_64() {
    let compare = pb::Compare {
        result: pb::compare::CompareResult::NotEqual.into(),
        target: pb::compare::CompareTarget::Lease.into(),
        key: Bytes::from_static(b"a"),
        target_union: Some(pb::compare::TargetUnion::Lease(0)),
        range_end: Bytes::from_static(b"b"),
    };
    // The zero operand is on the wire: a oneof knows set from unset.
    check(compare, b"\x08\x03\x10\x04\x1a\x01a\x40\x00\x82\x04\x01b");
}

#[test]
fn watch_response_holds_its_events_at_11() {
    let response = pb::WatchResponse {
        header: Some(pb::ResponseHeader { revision: 7, ..Default::default() }),
        watch_id: -1,
        events: vec![mvccpb::Event {
            r#type: mvccpb::event::EventType::Delete.into(),
            kv: Some(mvccpb::KeyValue { key: Bytes::from_static(b"k"), mod_revision: 7, ..Default::default() }),
            prev_kv: None,
        }],
        ..Default::default()
    };
    check(
        response,
        b"\x0a\x02\x18\x07\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x5a\x09\x08\x01\x12\x05\x0a\x01k\x18\x07",
    );
}

#[test]
fn watch_filters_are_packed() {
    use pb::watch_create_request::FilterType;
    let filters = vec![FilterType::Noput.into(), FilterType::Nodelete.into()];
    check(pb::WatchCreateRequest { filters, ..Default::default() }, b"\x2a\x02\x00\x01");
}

#[test]
fn acronyms_keep_their_numbers() {
    let member = pb::Member {
        id: 1,
        peer_urls: vec!["p".to_owned()],
        client_urls: vec!["c".to_owned()],
        is_learner: true,
        ..Default::default()
    };
    check(member, b"\x08\x01\x1a\x01p\x22\x01c\x28\x01");
    check(pb::LeaseGrantRequest { ttl: 5, id: 6 }, b"\x08\x05\x10\x06");
}

#[test]
fn nested_txn_in_bytes() {
    use pb::request_op::Request;
    let delete = pb::DeleteRangeRequest { key: Bytes::from_static(b"k"), ..Default::default() };
    let inner = pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) }],
        ..Default::default()
    };
    let outer = pb::TxnRequest {
        failure: vec![pb::RequestOp { request: Some(Request::RequestTxn(inner)) }],
        ..Default::default()
    };
    check(outer, b"\x1a\x09\x22\x07\x12\x05\x1a\x03\x0a\x01k");
}

#[test]
fn permission_and_health_in_bytes() {
    use authpb::permission::Type;
    check(authpb::Permission { perm_type: Type::Readwrite.into(), ..Default::default() }, b"\x08\x02");
    use health::health_check_response::ServingStatus;
    check(health::HealthCheckResponse { status: ServingStatus::NotServing.into() }, b"\x08\x02");
}
