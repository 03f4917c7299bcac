//! From restic's JSON to a tree.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::json::Json;
use super::quote::unquote;
use super::{ExtendedAttribute, Node, NodeKind, Timestamp, Tree, TreeError};
use crate::id::Id;

/// The shortest entry restic writes has some 150 bytes, of its times and ids alone.
const MIN_NODE_BYTES: usize = 100;
/// So many entries may be shorter: they take little memory.
const MAX_SHORT_NODES: usize = 1000;

impl Tree {
    /// Reads a tree. It takes about as much memory as its text if restic wrote it, and at most some 20 times as much whatever it
    /// holds.
    pub fn decode(text: &[u8]) -> Result<Tree, TreeError> {
        let mut json = Json::new(text);
        let mut memory = Memory::default();
        let mut nodes: Option<Vec<Node>> = None;
        json.object(|json, key| {
            if key != b"nodes" {
                return json.value().map(drop);
            }
            // The nodes of a real tree have 330 bytes and more.
            let nodes = nodes.insert(Vec::with_capacity(text.len() / 320));
            if json.null() {
                return Ok(());
            }
            json.array(|json| {
                let node = node(json, &mut memory)?;
                if let Some(previous) = nodes.last()
                    && previous.name >= node.name
                {
                    return Err(TreeError::order(&node.name, &previous.name));
                }
                if nodes.len() > MAX_SHORT_NODES + text.len() / MIN_NODE_BYTES {
                    return json.error("entries as long as restic's");
                }
                nodes.push(node);
                Ok(())
            })
        })?;
        json.end()?;
        match nodes {
            Some(nodes) => Ok(Tree { nodes }),
            None => json.error("nodes"),
        }
    }
}

/// What the node before had: times and owners repeat, within a node and from one to the next.
#[derive(Default)]
struct Memory<'a> {
    time_text: &'a [u8],
    time: Timestamp,
    user: Arc<str>,
    group: Arc<str>,
}

fn node<'a>(json: &mut Json<'a>, memory: &mut Memory<'a>) -> Result<Node, TreeError> {
    let mut node = Node {
        name: Box::default(),
        kind: NodeKind::Other(Box::default()),
        mode: 0,
        mtime: Timestamp::ZERO,
        atime: Timestamp::ZERO,
        ctime: Timestamp::ZERO,
        uid: 0,
        gid: 0,
        user: Arc::default(),
        group: Arc::default(),
        inode: 0,
        device_id: 0,
        size: 0,
        links: 0,
        link_target: Box::default(),
        extended_attributes: Vec::new(),
        generic_attributes: None,
        device: 0,
        content: None,
        subtree: None,
        error: Box::default(),
    };
    let mut raw_link_target = None;
    json.object(|json, key| {
        if json.null() {
            return Ok(());
        }
        match key {
            b"name" => node.name = name(json)?,
            b"type" => node.kind = NodeKind::from(&*json.text()?),
            b"mode" => node.mode = number_u32(json)?,
            b"mtime" => node.mtime = time(json, memory)?,
            b"atime" => node.atime = time(json, memory)?,
            b"ctime" => node.ctime = time(json, memory)?,
            b"uid" => node.uid = number_u32(json)?,
            b"gid" => node.gid = number_u32(json)?,
            b"user" => node.user = shared(json, &mut memory.user)?,
            b"group" => node.group = shared(json, &mut memory.group)?,
            b"inode" => node.inode = json.number(u64::MAX)?,
            b"device_id" => node.device_id = json.number(u64::MAX)?,
            b"size" => node.size = json.number(u64::MAX)?,
            b"links" => node.links = json.number(u64::MAX)?,
            b"linktarget" => node.link_target = json.string()?.into_owned().into(),
            b"linktarget_raw" => raw_link_target = Some(base64(json)?),
            b"extended_attributes" => json.array(|json| {
                node.extended_attributes.push(extended_attribute(json)?);
                Ok(())
            })?,
            b"generic_attributes" => node.generic_attributes = generic_attributes(json)?,
            b"device" => node.device = json.number(u64::MAX)?,
            b"content" => {
                let content = node.content.insert(Vec::new());
                json.array(|json| {
                    content.push(id(json)?);
                    Ok(())
                })?;
            }
            b"subtree" => node.subtree = Some(id(json)?),
            b"error" => node.error = json.text()?.into(),
            _ => drop(json.value()?),
        }
        Ok(())
    })?;
    if let Some(target) = raw_link_target {
        node.link_target = target;
    }
    Ok(node)
}

fn name(json: &mut Json<'_>) -> Result<Box<[u8]>, TreeError> {
    match json.string()? {
        // Without JSON's escapes there can be none of Go's.
        Cow::Borrowed(name) => Ok(name.into()),
        Cow::Owned(text) => match unquote(&text) {
            Some(name) => Ok(name.into()),
            None => json.error("a quoted name before this place"),
        },
    }
}

fn number_u32(json: &mut Json<'_>) -> Result<u32, TreeError> {
    json.number(u64::from(u32::MAX)).map(|number| number as u32)
}

fn shared(json: &mut Json<'_>, last: &mut Arc<str>) -> Result<Arc<str>, TreeError> {
    let text = json.text()?;
    if **last != *text {
        *last = text.into();
    }
    Ok(Arc::clone(last))
}

fn time<'a>(json: &mut Json<'a>, memory: &mut Memory<'a>) -> Result<Timestamp, TreeError> {
    json.open_quote()?;
    let rest = json.rest();
    if !memory.time_text.is_empty() && rest.starts_with(memory.time_text) {
        json.advance(memory.time_text.len());
        return Ok(memory.time);
    }
    // Go reads any number of decimals, but no writer makes more than nine.
    let text = rest.iter().take(64).position(|&byte| byte == b'"').map(|end| &rest[..end]);
    let Some((text, time)) = text.and_then(|text| Some((text, Timestamp::parse(text)?))) else {
        return json.error("a time");
    };
    json.advance(text.len() + 1);
    memory.time_text = &rest[..text.len() + 1];
    memory.time = time;
    Ok(time)
}

fn id(json: &mut Json<'_>) -> Result<Id, TreeError> {
    json.open_quote()?;
    let id = match json.rest().split_at_checked(64) {
        Some((hex, [b'"', ..])) => Id::from_hex(hex),
        _ => None,
    };
    let Some(id) = id else {
        return json.error("the 64 hexadecimal digits of an id");
    };
    json.advance(65);
    Ok(id)
}

fn base64(json: &mut Json<'_>) -> Result<Box<[u8]>, TreeError> {
    match BASE64.decode(json.string()?) {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => json.error("base64 before this place"),
    }
}

fn extended_attribute(json: &mut Json<'_>) -> Result<ExtendedAttribute, TreeError> {
    let mut attribute = ExtendedAttribute { name: Box::default(), value: None };
    json.object(|json, key| {
        if json.null() {
            return Ok(());
        }
        match key {
            b"name" => attribute.name = json.text()?.into(),
            b"value" => attribute.value = Some(base64(json)?),
            _ => drop(json.value()?),
        }
        Ok(())
    })?;
    Ok(attribute)
}

fn generic_attributes(json: &mut Json<'_>) -> Result<Option<Box<str>>, TreeError> {
    let mut members = 0;
    let mut text = json.rest();
    let before = text.len();
    json.object(|json, _| {
        members += 1;
        json.value().map(drop)
    })?;
    text = &text[..before - json.rest().len()];
    match std::str::from_utf8(text) {
        Ok(_) if members == 0 => Ok(None),
        Ok(text) => Ok(Some(text.into())),
        Err(_) => json.error("UTF-8 before this place"),
    }
}
