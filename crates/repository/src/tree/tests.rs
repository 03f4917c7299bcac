use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::id::Id;

/// restic 0.19.1 wrote it; its id there is `RESTIC_TREE_ID`.
const RESTIC_TREE: &[u8] = include_bytes!("../../tests/data/tree-of-restic-0.19.1.json");
const RESTIC_TREE_ID: &str = "3bff71fd9da4ab6cdc8f5f652634dee0fdd3d5368c761992aba7498fcc772c00";

fn reencode(text: &str) -> String {
    String::from_utf8(Tree::decode(text.as_bytes()).unwrap().encode().unwrap()).unwrap()
}

fn nodes(text: &str) -> Result<Vec<Node>, TreeError> {
    Tree::decode(format!("{{\"nodes\":[{text}]}}").as_bytes()).map(|tree| tree.nodes)
}

#[test]
fn a_tree_of_restic_keeps_its_id() {
    let written = Tree::decode(RESTIC_TREE).unwrap().encode().unwrap();
    assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(RESTIC_TREE));
    assert_eq!(crate::hash::sha256(&written).to_string(), RESTIC_TREE_ID);
}

#[test]
fn a_tree_of_restic_holds_what_was_backed_up() {
    let nodes = Tree::decode(RESTIC_TREE).unwrap().nodes;
    let names: Vec<&[u8]> = nodes.iter().map(|node| &*node.name).collect();
    let expected: [&[u8]; 9] =
        [b"a<b>&\"c\\d", b"bad \xff\xe2\x82.txt\n", b"empty", b"fifo", b"link", b"linku", b"null", b"sub", b"zhard"];
    assert_eq!(names, expected);
    let [quoted, _, empty, fifo, link, linku, null, sub, _] = &nodes[..] else { unreachable!() };
    assert_eq!((&quoted.kind, quoted.size, quoted.content.as_ref().unwrap().len()), (&NodeKind::File, 3, 1));
    assert_eq!((empty.content.as_deref(), empty.links), (Some(&[][..]), 2));
    let attribute = ExtendedAttribute { name: "user.k".into(), value: Some([0, 255].into()) };
    assert_eq!(empty.extended_attributes, [attribute]);
    assert_eq!((&fifo.kind, &fifo.content), (&NodeKind::Fifo, &None));
    assert_eq!(*link.link_target, *b"t\x08\x0c\xff");
    assert_eq!(*linku.link_target, *"é<\u{2028}>".as_bytes());
    assert_eq!((&null.kind, null.device), (&NodeKind::CharDevice, 0x103));
    assert_eq!((&sub.kind, sub.mode), (&NodeKind::Dir, mode::DIR | 0o755));
    assert_eq!(sub.mtime, Timestamp::from_unix(1_700_000_000, 120_000_000, 0));
    assert!(Arc::ptr_eq(&quoted.user, &sub.user), "owners are shared");
}

#[test]
fn the_empty_tree_is_what_restic_writes() {
    assert_eq!(TreeEncoder::new().finish(), b"{\"nodes\":[]}\n");
    assert_eq!(Tree::decode(b"{\"nodes\":[]}\n").unwrap(), Tree::default());
    assert_eq!(Tree::decode(b"{\"nodes\":null}\n").unwrap(), Tree::default());
}

#[test]
fn any_order_unknown_fields_and_white_space_are_read() {
    let text = "\r\n{ \"version\" : [1, {\"a\": null}],\t\"nodes\" : [ { \"inode\" : 18446744073709551615 , \"later\": -1.5e3,
        \"content\" : [ ], \"n\\u0061me\" : \"a\" , \"type\":\"file\", \"user\": null, \"subtree\": null } ] , \"x\": true } \n";
    let no_time = "0001-01-01T00:00:00Z";
    let expected = format!(
        "{{\"nodes\":[{{\"name\":\"a\",\"type\":\"file\",\"mtime\":\"{no_time}\",\"atime\":\"{no_time}\",\"ctime\":\"{no_time}\",\
         \"uid\":0,\"gid\":0,\"inode\":18446744073709551615,\"content\":[]}}]}}\n"
    );
    assert_eq!(reencode(text), expected);
}

#[test]
fn what_older_versions_wrote_is_read_and_written_as_by_the_newest() {
    let old = r#"{"name":"\\u007f\\U00011f00","linktarget":"\u0008\u000c\ufffd"}"#;
    let node = &nodes(old).unwrap()[0];
    assert_eq!(*node.name, *"\x7f\u{11f00}".as_bytes());
    assert_eq!(*node.link_target, *"\x08\x0c\u{fffd}".as_bytes());
    let written = String::from_utf8(Tree { nodes: vec![node.clone()] }.encode().unwrap()).unwrap();
    assert!(written.contains("\"name\":\"\\\\x7f\u{11f00}\""), "{written}");
    assert!(written.contains("\"linktarget\":\"\\b\\f\u{fffd}\""), "{written}");
}

#[test]
fn attributes_of_other_systems_are_kept_as_they_are() {
    let attributes = r#"{"windows.creation_time":"AAA=","windows.file_attributes":{"x":[1,"\u003c"]}}"#;
    let node = &nodes(&format!(r#"{{"name":"a","generic_attributes":{attributes}}}"#)).unwrap()[0];
    assert_eq!(node.generic_attributes.as_deref(), Some(attributes));
    let written = String::from_utf8(Tree { nodes: vec![node.clone()] }.encode().unwrap()).unwrap();
    assert!(written.contains(&format!(",\"generic_attributes\":{attributes},\"content\":null")));
    assert_eq!(nodes(r#"{"name":"a","generic_attributes":{}}"#).unwrap()[0].generic_attributes, None);
}

#[test]
fn names_must_strictly_increase_by_their_bytes() {
    let order = |name: &str, previous: &str| TreeError::Order { name: name.into(), previous: previous.into() };
    assert_eq!(nodes(r#"{"name":"b"},{"name":"a"}"#), Err(order("a", "b")));
    assert_eq!(nodes(r#"{"name":"a"},{"name":"a"}"#), Err(order("a", "a")));
    assert_eq!(nodes(r#"{"name":"\\xff"},{"name":"é"}"#), Err(order("\\xc3\\xa9", "\\xff")));

    let [a, b]: [Node; 2] = nodes(r#"{"name":"a"},{"name":"b"}"#).unwrap().try_into().unwrap();
    let mut encoder = TreeEncoder::new();
    encoder.push(&a).unwrap();
    let text = encoder.size_bytes();
    assert_eq!(encoder.push(&a), Err(order("a", "a")));
    assert_eq!(encoder.size_bytes(), text);
    encoder.push(&b).unwrap();
    assert_eq!(encoder.push(&a), Err(order("a", "b")));
    assert_eq!(Tree::decode(&encoder.finish()).unwrap().nodes, [a.clone(), b]);
    assert_eq!(TreeEncoder::new().push(&Node { name: Box::default(), ..a }), Err(TreeError::EmptyName));
}

#[test]
fn hostile_names_are_read_and_can_be_told() {
    let names = [r#""#, r#"."#, r#".."#, r#"..\\x00"#, r#"../a"#, r#"/etc"#, r#"a\\u0000"#, r#"a/b"#];
    let text = names.map(|name| format!(r#"{{"name":"{name}"}}"#)).join(",");
    assert!(nodes(&text).unwrap().iter().all(|node| !node.has_safe_name()));
    let text = ["...", "..a", r"\\n", r"\\\\", r"\\xff"].map(|name| format!(r#"{{"name":"{name}"}}"#));
    assert!(text.iter().all(|text| nodes(text).unwrap()[0].has_safe_name()));
}

#[test]
fn damage_is_an_error_that_tells_where() {
    assert_eq!(Tree::decode(b"{}"), Err(TreeError::Syntax { offset: 2, expected: "nodes" }));
    assert_eq!(Tree::decode(b"{\"nodes\":[]}\n{"), Err(TreeError::Syntax { offset: 13, expected: "the end" }));
    for text in [
        r#"{"name":1}"#,
        r#"{"name":"\\q"}"#,
        r#"{"name":"\n"}"#,
        r#"{"name":"\""}"#,
        r#"{"mode":4294967296}"#,
        r#"{"uid":-1}"#,
        r#"{"uid":1.0}"#,
        r#"{"uid":01}"#,
        r#"{"size":18446744073709551616}"#,
        r#"{"mtime":"2023-11-14"}"#,
        r#"{"mtime":"2023-11-14T22:13:20Z}"#,
        r#"{"subtree":"abc"}"#,
        r#"{"content":["00"]}"#,
        r#"{"content":{}}"#,
        r#"{"linktarget_raw":"?"}"#,
        r#"{"extended_attributes":[{"name":"a","value":"="}]}"#,
        r#"{"generic_attributes":[]}"#,
        r#"{"name":"a"},"#,
        r#"{"name":"a"} {"name":"b"}"#,
        r#"nul"#,
        r#"[]"#,
    ] {
        assert!(matches!(nodes(text), Err(TreeError::Syntax { .. })), "{text}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    for len in 0..RESTIC_TREE.len() - 1 {
        assert!(matches!(Tree::decode(&RESTIC_TREE[..len]), Err(TreeError::Syntax { .. })), "{len}");
    }
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 1..40),
        any::<String>().prop_filter("not empty", |text| !text.is_empty()).prop_map(String::into_bytes),
        "[a-z.]{1,12}".prop_map(String::into_bytes),
    ]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    let secs = prop_oneof![any::<i64>(), -70_000_000_000..260_000_000_000_i64];
    (secs, 0..1_000_000_000_u32, -1439..1440_i16)
        .prop_map(|(secs, nanos, offset)| Timestamp::from_unix(secs, nanos, offset))
}

fn any_kind() -> impl Strategy<Value = NodeKind> {
    prop_oneof![
        Just(NodeKind::File),
        Just(NodeKind::Dir),
        Just(NodeKind::CharDevice),
        any::<String>().prop_map(|text| NodeKind::from(&*text))
    ]
}

prop_compose! {
    fn any_node()(
        kind in any_kind(),
        (mtime, atime, ctime) in (any_time(), any_time(), any_time()),
        (mode, uid, gid) in any::<(u32, u32, u32)>(),
        (user, group, error) in any::<(String, String, String)>(),
        (inode, device_id, size, links, device) in any::<(u64, u64, u64, u64, u64)>(),
        link_target in vec(any::<u8>(), 0..30),
        attributes in vec((any::<String>(), any::<Option<Vec<u8>>>()), 0..3),
        content in any::<Option<Vec<[u8; 32]>>>(),
        subtree in any::<Option<[u8; 32]>>(),
    ) -> Node {
        Node {
            name: Box::default(),
            kind, mode, mtime, atime, ctime, uid, gid,
            user: user.into(),
            group: group.into(),
            inode, device_id, size, links,
            link_target: link_target.into(),
            extended_attributes: attributes
                .into_iter()
                .map(|(name, value)| ExtendedAttribute { name: name.into(), value: value.map(Into::into) })
                .collect(),
            generic_attributes: None,
            device,
            content: content.map(|ids| ids.into_iter().map(Id).collect()),
            subtree: subtree.map(Id),
            error: error.into(),
        }
    }
}

proptest! {
    #[test]
    fn any_tree_survives_the_way_there_and_back(named in btree_map(any_bytes(), any_node(), 0..6)) {
        let nodes = named.into_iter().map(|(name, node)| Node { name: name.into(), ..node }).collect();
        let tree = Tree { nodes };
        let text = tree.encode().unwrap();
        let read = Tree::decode(&text).unwrap();
        prop_assert_eq!(&read, &tree);
        prop_assert_eq!(read.encode().unwrap(), text.clone());
        // Another parser agrees that it is JSON.
        serde_json::from_slice::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(at in 0..RESTIC_TREE.len(), bytes in vec(any::<u8>(), 1..8), cut in 0..8_usize) {
        let mut text = RESTIC_TREE[..at].to_vec();
        text.extend(bytes);
        text.extend_from_slice(&RESTIC_TREE[(at + cut).min(RESTIC_TREE.len())..]);
        if let Ok(tree) = Tree::decode(&text) && tree.nodes.iter().all(|node| !node.name.is_empty()) {
            // Whatever it accepts, it can write and read again.
            prop_assert_eq!(Tree::decode(&tree.encode().unwrap()).unwrap(), tree);
        }
    }
}
