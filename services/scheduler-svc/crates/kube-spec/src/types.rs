//! The messages and their fields.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

/// Number of a message in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StructId(usize);

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// UTF-8 text.
    String,
    /// true or false.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point.
    Double,
    /// Bytes; base64 in JSON.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Go duration text.
    Duration,
    /// `resource.Quantity`.
    Quantity,
    /// A number or a text.
    IntOrString,
    /// An object of any kind.
    Raw,
    /// A field set of managedFields.
    FieldsV1,
    /// Another message.
    Struct(StructId),
    /// Optional value whose zero differs from absence.
    Ptr(Box<Type>),
    /// Repeated.
    List(Box<Type>),
    /// Map with text keys.
    Map(Box<Type>),
    /// A list that is a message of its own in protobuf (`items = 1`).
    Wrap(Box<Type>),
}

/// How lists merge in server-side apply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// Nothing said: lists and structs as their kind demands, lists atomic.
    #[default]
    Default,
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Objects keyed by these fields.
    Map(Vec<&'static str>),
}

/// How a field merges in a strategic merge patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// `merge`: list items merge by key, or as a set of scalars.
    pub merge: bool,
    /// `replace`.
    pub replace: bool,
    /// `retainKeys`.
    pub retain_keys: bool,
}

/// One field of a message.
#[derive(Debug, Clone)]
pub struct Field {
    /// JSON name; empty when `inline`.
    pub name: &'static str,
    /// Protobuf number; 0 when the field has none.
    pub number: u32,
    /// What it holds.
    pub ty: Type,
    /// Left out of JSON when empty (Go's rule: structs are never empty).
    pub omitempty: bool,
    /// Left out of JSON when it is the zero value, structs too.
    pub omitzero: bool,
    /// Its fields are fields of the parent in JSON.
    pub inline: bool,
    /// Must be given.
    pub required: bool,
    /// Strategic merge.
    pub patch: PatchStrategy,
    /// Key of list items in a strategic merge.
    pub merge_key: Option<&'static str>,
    /// Server-side apply.
    pub list: ListType,
    /// Default value declared by the type.
    pub default: Option<Value>,
}

/// One message.
#[derive(Debug)]
pub struct Struct {
    /// `core/v1.Pod`
    pub name: &'static str,
    /// Fields in the order of the Go type.
    pub fields: Vec<Field>,
    /// Whether server-side apply treats it as one value.
    pub atomic: bool,
    by_name: HashMap<&'static str, (usize, Option<usize>)>,
    by_number: Vec<usize>,
}

/// All messages.
#[derive(Debug)]
pub struct Types {
    list: Vec<Struct>,
    names: HashMap<&'static str, StructId>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| load(include_str!("../data/types.txt")));

/// The table of messages.
pub fn types() -> &'static Types {
    &TYPES
}

impl Types {
    /// A message by its number.
    pub fn get(&self, id: StructId) -> &Struct {
        &self.list[id.0]
    }

    /// A message by its name, such as `core/v1.Pod`.
    pub fn find(&self, name: &str) -> Option<StructId> {
        self.names.get(name).copied()
    }

    /// Every message with its number.
    pub fn iter(&self) -> impl Iterator<Item = (StructId, &Struct)> {
        self.list.iter().enumerate().map(|(i, s)| (StructId(i), s))
    }
}

impl Struct {
    /// The field that holds JSON key `name`, looking through inline fields: the field itself and, when it is
    /// inside an inline one, that inline field first.
    pub fn field(&'static self, name: &str) -> Option<(Option<&'static Field>, &'static Field)> {
        let (outer, inner) = *self.by_name.get(name)?;
        let field = &self.fields[outer];
        match (inner, &field.ty) {
            (None, _) => Some((None, field)),
            (Some(i), Type::Struct(id)) => Some((Some(field), &id.get().fields[i])),
            (Some(i), Type::Ptr(ty)) => match **ty {
                Type::Struct(id) => Some((Some(field), &id.get().fields[i])),
                _ => None,
            },
            _ => None,
        }
    }

    /// Fields in the order of their protobuf numbers.
    pub fn numbered(&self) -> impl Iterator<Item = &Field> {
        self.by_number.iter().map(|i| &self.fields[*i])
    }

    /// The field with a protobuf number.
    pub fn by_number(&self, number: u32) -> Option<&Field> {
        let at = self.by_number.binary_search_by_key(&number, |i| self.fields[*i].number).ok()?;
        Some(&self.fields[self.by_number[at]])
    }

    /// Name without package, as Go prints it: `v1.Pod`.
    pub fn go_name(&self) -> String {
        let (package, name) = self.name.rsplit_once('.').unwrap_or(("", self.name));
        let package = package.rsplit('/').next().unwrap_or_default();
        format!("{package}.{name}")
    }

    /// Name without package.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

impl Type {
    /// The type behind pointers.
    pub fn target(&self) -> &Type {
        match self {
            Self::Ptr(inner) => inner.target(),
            other => other,
        }
    }

    /// Whether it is a pointer.
    pub fn is_ptr(&self) -> bool {
        matches!(self, Self::Ptr(_))
    }

    /// The message, when it is one (or a pointer to one).
    pub fn as_struct(&self) -> Option<&'static Struct> {
        match self.target() {
            Self::Struct(id) => Some(id.get()),
            _ => None,
        }
    }
}

fn load(text: &'static str) -> Types {
    let mut names: HashMap<&'static str, StructId> = HashMap::new();
    let mut order = Vec::new();
    for name in text.lines().filter_map(|line| line.strip_prefix("= ")) {
        names.insert(name, StructId(order.len()));
        order.push(name);
    }
    let mut list: Vec<Struct> = order
        .iter()
        .map(|name| Struct {
            name,
            fields: Vec::new(),
            atomic: false,
            by_name: HashMap::new(),
            by_number: Vec::new(),
        })
        .collect();
    let mut current = 0;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("= ") {
            current = names[name].0;
        } else if line == "! atomic" {
            list[current].atomic = true;
        } else if let Some(field) = parse_field(line, &mut names, &mut list) {
            list[current].fields.push(field);
        }
    }
    index_names(&mut list);
    Types { list, names }
}

fn index_names(list: &mut [Struct]) {
    for i in 0..list.len() {
        let mut by_name = HashMap::new();
        for (position, field) in list[i].fields.iter().enumerate() {
            if !field.inline {
                by_name.insert(field.name, (position, None));
                continue;
            }
            if let Type::Struct(id) = field.ty.target() {
                for (inner, nested) in list[id.0].fields.iter().enumerate() {
                    by_name.insert(nested.name, (position, Some(inner)));
                }
            }
        }
        let mut numbered: Vec<usize> =
            (0..list[i].fields.len()).filter(|f| list[i].fields[*f].number != 0).collect();
        numbered.sort_by_key(|f| list[i].fields[*f].number);
        list[i].by_name = by_name;
        list[i].by_number = numbered;
    }
}

fn parse_field(
    line: &'static str,
    names: &mut HashMap<&'static str, StructId>,
    list: &mut Vec<Struct>,
) -> Option<Field> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let number = words.next()?.parse().ok()?;
    let ty = parse_type(words.next()?, names, list);
    let mut field = Field {
        name: if name == "-" { "" } else { name },
        number,
        ty,
        omitempty: false,
        omitzero: false,
        inline: false,
        required: false,
        patch: PatchStrategy::default(),
        merge_key: None,
        list: ListType::Default,
        default: None,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "o" => field.omitempty = true,
            None if word == "z" => field.omitzero = true,
            None if word == "i" => field.inline = true,
            None => field.required = true,
            Some(("p", strategy)) => {
                field.patch.merge = strategy.contains("merge");
                field.patch.replace = strategy.contains("replace");
                field.patch.retain_keys = strategy.contains("retainKeys");
            }
            Some(("k", key)) => field.merge_key = Some(key),
            Some(("l", "atomic")) => field.list = ListType::Atomic,
            Some(("l", "set")) => field.list = ListType::Set,
            Some(("l", map)) => {
                let keys = map.split_once(':').map(|(_, keys)| keys.split(',').collect());
                field.list = ListType::Map(keys.unwrap_or_default());
            }
            Some((_, json)) => field.default = serde_json::from_str(json).ok(),
        }
    }
    Some(field)
}

fn parse_type(
    text: &'static str,
    names: &mut HashMap<&'static str, StructId>,
    list: &mut Vec<Struct>,
) -> Type {
    let mut nested = |rest| Box::new(parse_type(rest, names, list));
    if let Some(rest) = text.strip_prefix('*') {
        return Type::Ptr(nested(rest));
    }
    if let Some(rest) = text.strip_prefix("[]") {
        return Type::List(nested(rest));
    }
    if let Some(rest) = text.strip_prefix("map:") {
        return Type::Map(nested(rest));
    }
    if let Some(rest) = text.strip_prefix("wrap:") {
        return Type::Wrap(nested(rest));
    }
    match text {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "duration" => Type::Duration,
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "raw" => Type::Raw,
        "fieldsv1" => Type::FieldsV1,
        name => {
            // Types without fields have no entry of their own.
            let id = *names.entry(name).or_insert_with(|| {
                list.push(Struct {
                    name,
                    fields: Vec::new(),
                    atomic: false,
                    by_name: HashMap::new(),
                    by_number: Vec::new(),
                });
                StructId(list.len() - 1)
            });
            Type::Struct(id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ports_merge_by_their_key() {
        let container = types().find("core/v1.Container").unwrap().get();
        let (_, ports) = container.field("ports").unwrap();
        assert_eq!(ports.number, 6);
        assert!(ports.patch.merge);
        assert_eq!(ports.merge_key, Some("containerPort"));
        assert_eq!(ports.list, ListType::Map(vec!["containerPort", "protocol"]));
    }

    #[test]
    fn inline_fields_are_found_through_their_parent() {
        let volume = types().find("core/v1.Volume").unwrap().get();
        let (outer, field) = volume.field("configMap").unwrap();
        assert!(outer.unwrap().inline);
        assert_eq!(field.name, "configMap");
        assert!(volume.field("nonsense").is_none());
    }
}
