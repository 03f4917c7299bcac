//! From nodes to restic's JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::quote::{push_name, push_string};
use super::timestamp::MAX_LEN;
use super::{Node, Timestamp, Tree, TreeError};
use crate::id::Id;

/// Writes a tree node by node.
#[derive(Debug)]
pub struct TreeEncoder {
    text: Vec<u8>,
    last_name: Vec<u8>,
}

impl TreeEncoder {
    /// A tree without nodes.
    pub fn new() -> Self {
        TreeEncoder { text: b"{\"nodes\":[".to_vec(), last_name: Vec::new() }
    }

    /// Appends a node; its name must be greater than the one before. After an error the tree is as if it had not been called.
    pub fn push(&mut self, node: &Node) -> Result<(), TreeError> {
        if node.name.is_empty() {
            return Err(TreeError::EmptyName);
        }
        if *node.name <= *self.last_name {
            return Err(TreeError::order(&node.name, &self.last_name));
        }
        if !self.last_name.is_empty() {
            self.text.push(b',');
        }
        self.last_name.clear();
        self.last_name.extend_from_slice(&node.name);
        push_node(&mut self.text, node);
        Ok(())
    }

    /// The bytes of the text so far; lets a caller that keeps many trees open know what they take.
    pub fn size_bytes(&self) -> usize {
        self.text.len()
    }

    /// The tree's text: these very bytes are hashed and stored.
    pub fn finish(mut self) -> Vec<u8> {
        self.text.extend(b"]}\n");
        self.text
    }
}

impl Default for TreeEncoder {
    fn default() -> Self {
        TreeEncoder::new()
    }
}

impl Tree {
    /// The tree's text, if the names strictly increase.
    pub fn encode(&self) -> Result<Vec<u8>, TreeError> {
        let mut encoder = TreeEncoder::new();
        for node in &self.nodes {
            encoder.push(node)?;
        }
        Ok(encoder.finish())
    }
}

fn push_node(out: &mut Vec<u8>, node: &Node) {
    out.extend(b"{\"name\":\"");
    push_name(out, &node.name);
    out.extend(b"\",\"type\":\"");
    push_string(out, node.kind.as_str().as_bytes());
    out.push(b'"');
    push_unless_zero(out, b",\"mode\":", node.mode.into());
    push_times(out, node);
    out.extend(b",\"uid\":");
    push_number(out, node.uid.into());
    out.extend(b",\"gid\":");
    push_number(out, node.gid.into());
    push_unless_empty(out, b",\"user\":\"", node.user.as_bytes());
    push_unless_empty(out, b",\"group\":\"", node.group.as_bytes());
    push_unless_zero(out, b",\"inode\":", node.inode);
    push_unless_zero(out, b",\"device_id\":", node.device_id);
    push_unless_zero(out, b",\"size\":", node.size);
    push_unless_zero(out, b",\"links\":", node.links);
    push_unless_empty(out, b",\"linktarget\":\"", &node.link_target);
    if std::str::from_utf8(&node.link_target).is_err() {
        out.extend(b",\"linktarget_raw\":");
        push_base64(out, &node.link_target);
    }
    push_extended_attributes(out, node);
    if let Some(attributes) = &node.generic_attributes {
        out.extend(b",\"generic_attributes\":");
        out.extend_from_slice(attributes.as_bytes());
    }
    push_unless_zero(out, b",\"device\":", node.device);
    out.extend(b",\"content\":");
    match &node.content {
        Some(content) => push_array(out, content, push_id),
        None => out.extend(b"null"),
    }
    if let Some(subtree) = &node.subtree {
        out.extend(b",\"subtree\":");
        push_id(out, subtree);
    }
    push_unless_empty(out, b",\"error\":\"", node.error.as_bytes());
    out.push(b'}');
}

fn push_times(out: &mut Vec<u8>, node: &Node) {
    let same = |a: Timestamp, b: Timestamp| a == b && a.offset_minutes == b.offset_minutes;
    let mut text = [0; MAX_LEN];
    let mut len = node.mtime.format_into(&mut text);
    out.extend(b",\"mtime\":\"");
    out.extend_from_slice(&text[..len]);
    let mut written = node.mtime;
    for (key, time) in [(b"\",\"atime\":\"", node.atime), (b"\",\"ctime\":\"", node.ctime)] {
        if !same(time, written) {
            len = time.format_into(&mut text);
            written = time;
        }
        out.extend(key);
        out.extend_from_slice(&text[..len]);
    }
    out.push(b'"');
}

fn push_extended_attributes(out: &mut Vec<u8>, node: &Node) {
    if node.extended_attributes.is_empty() {
        return;
    }
    out.extend(b",\"extended_attributes\":");
    push_array(out, &node.extended_attributes, |out, attribute| {
        out.extend(b"{\"name\":\"");
        push_string(out, attribute.name.as_bytes());
        out.extend(b"\",\"value\":");
        match &attribute.value {
            Some(value) => push_base64(out, value),
            None => out.extend(b"null"),
        }
        out.push(b'}');
    });
}

fn push_array<T>(out: &mut Vec<u8>, elements: &[T], push: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push(out, element);
    }
    out.push(b']');
}

fn push_unless_empty(out: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    if !text.is_empty() {
        out.extend_from_slice(key);
        push_string(out, text);
        out.push(b'"');
    }
}

fn push_unless_zero(out: &mut Vec<u8>, key: &[u8], number: u64) {
    if number != 0 {
        out.extend_from_slice(key);
        push_number(out, number);
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    BASE64.encode_slice(bytes, &mut out[start..]).expect("four digits for every three bytes");
    out.push(b'"');
}

fn push_id(out: &mut Vec<u8>, id: &Id) {
    out.push(b'"');
    out.extend_from_slice(&id.hex());
    out.push(b'"');
}
