//! The node table: amounts in columns, the rest in rows. A slot stays a node's own as long as the node or a
//! pod on it is known.

use std::collections::{BTreeSet, HashMap};

use crate::class::{Class, Columns, Port, amount, image_name};
use crate::labels::Labels;
use crate::spec::Node;
use crate::taints::Taint;

/// What is known of a node besides amounts.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Whether the node itself is known; pods may be known before it, and after.
    pub present: bool,
    /// Labels.
    pub labels: Labels,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// Pods the node may have.
    pub max_pods: i64,
    /// Uids of the pods on it.
    pub pods: BTreeSet<String>,
    /// Open ports and how many pods say so.
    pub ports: Vec<(Port, u32)>,
    /// Images and their sizes.
    pub images: HashMap<String, i64>,
    /// Breaks ties; a function of the name alone.
    pub salt: u64,
}

/// All nodes.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    rows: Vec<Row>,
    slots: HashMap<String, usize>,
    free: Vec<usize>,
    present: usize,
    /// Allocatable amounts, by column and slot.
    allocatable: Vec<Vec<i64>>,
    /// Requested amounts, by column and slot.
    requested: Vec<Vec<i64>>,
    /// CPU and memory requested as scores count them.
    scored: [Vec<i64>; 2],
    /// Nodes that have an image.
    spread: HashMap<String, usize>,
    image_epoch: u64,
    topologies: Vec<Topology>,
}

/// The domains of one topology label.
#[derive(Debug, Clone)]
struct Topology {
    key: String,
    ids: HashMap<String, u32>,
    /// By slot; 0 where the node has no such label.
    of: Vec<u32>,
}

impl Topology {
    fn look(&mut self, slot: usize, row: &Row) {
        let value = row.labels.get(&self.key).filter(|_| row.present);
        self.of[slot] = value.map_or(0, |value| {
            if let Some(id) = self.ids.get(value) {
                return *id;
            }
            let id = self.ids.len() as u32 + 1;
            self.ids.insert(value.clone(), id);
            id
        });
    }
}

impl Nodes {
    /// Number of a topology label, to ask for domains with; domains are kept from the first call on.
    pub fn topology(&mut self, key: &str) -> usize {
        if let Some(known) = self.topologies.iter().position(|t| t.key == key) {
            let topology = &mut self.topologies[known];
            if topology.ids.len() > 2 * self.rows.len() + 64 {
                // Mostly domains of nodes that are gone.
                topology.ids.clear();
                for (slot, row) in self.rows.iter().enumerate() {
                    topology.look(slot, row);
                }
            }
            return known;
        }
        let of = vec![0; self.rows.len()];
        let mut topology = Topology { key: key.to_owned(), ids: HashMap::new(), of };
        for (slot, row) in self.rows.iter().enumerate() {
            topology.look(slot, row);
        }
        self.topologies.push(topology);
        self.topologies.len() - 1
    }

    /// Domain of a node: 0 for none, else at most [`Nodes::domains`].
    pub fn domain(&self, topology: usize, slot: usize) -> usize {
        self.topologies[topology].of[slot] as usize
    }

    /// Highest number of a domain.
    pub fn domains(&self, topology: usize) -> usize {
        self.topologies[topology].ids.len()
    }

    fn look(&mut self, slot: usize) {
        for topology in &mut self.topologies {
            topology.look(slot, &self.rows[slot]);
        }
    }

    /// Number of slots, used or not.
    pub fn slots(&self) -> usize {
        self.rows.len()
    }

    /// Number of nodes.
    pub fn present(&self) -> usize {
        self.present
    }

    /// One row.
    pub fn row(&self, slot: usize) -> &Row {
        &self.rows[slot]
    }

    /// Slot of a node.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.slots.get(name).copied()
    }

    /// Allocatable and requested amount of a resource; 0 for one the node does not have.
    pub fn amounts(&self, column: usize, slot: usize) -> (i64, i64) {
        let at = |columns: &[Vec<i64>]| columns.get(column).map_or(0, |c| c[slot]);
        (at(&self.allocatable), at(&self.requested))
    }

    /// CPU or memory requested as scores count it.
    pub fn scored(&self, resource: usize, slot: usize) -> i64 {
        self.scored[resource][slot]
    }

    /// Changes whenever image scores of all nodes may have.
    pub fn image_epoch(&self) -> u64 {
        self.image_epoch
    }

    /// Number of nodes that have the image.
    pub fn with_image(&self, image: &str) -> usize {
        self.spread.get(image).copied().unwrap_or(0)
    }

    /// The slot of the node, made if need be.
    pub fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let row = Row { name: name.to_owned(), salt: salt(name), ..Row::default() };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.rows[slot] = row;
                slot
            }
            None => {
                self.rows.push(row);
                let columns = self.allocatable.iter_mut().chain(&mut self.requested);
                columns.chain(&mut self.scored).for_each(|column| column.push(0));
                self.topologies.iter_mut().for_each(|topology| topology.of.push(0));
                self.rows.len() - 1
            }
        };
        self.slots.insert(name.to_owned(), slot);
        slot
    }

    fn widen(&mut self, columns: usize) {
        let slots = self.rows.len();
        for table in [&mut self.allocatable, &mut self.requested] {
            while table.len() < columns {
                table.push(vec![0; slots]);
            }
        }
    }

    /// Takes the state of a node; returns its slot and whether labels changed.
    ///
    /// # Errors
    /// When an amount is no quantity.
    pub fn set(&mut self, node: &Node, columns: &mut Columns) -> Result<(usize, bool), String> {
        let status = &node.status;
        let amounts =
            if status.allocatable.is_empty() { &status.capacity } else { &status.allocatable };
        let read = columns.read(amounts)?;
        let max_pods = amounts.get("pods").map_or(Ok(0), |v| amount("pods", v))?;
        let slot = self.slot(&node.metadata.name);
        self.widen(columns.len());
        for (column, table) in self.allocatable.iter_mut().enumerate() {
            table[slot] = read.get(&column).copied().unwrap_or(0);
        }
        let names = |image: &crate::spec::ImageSpec| {
            let size = image.size_bytes.max(0);
            image.names.iter().map(move |name| (image_name(name), size)).collect::<Vec<_>>()
        };
        let images: HashMap<String, i64> = status.images.iter().flat_map(names).collect();
        self.set_images(slot, images);
        let row = &mut self.rows[slot];
        let relabeled = !row.present || row.labels != node.metadata.labels;
        row.labels.clone_from(&node.metadata.labels);
        row.taints.clone_from(&node.spec.taints);
        row.unschedulable = node.spec.unschedulable;
        row.max_pods = max_pods;
        if !row.present {
            row.present = true;
            self.present += 1;
            self.image_epoch += 1;
        }
        if relabeled {
            self.look(slot);
        }
        Ok((slot, relabeled))
    }

    fn set_images(&mut self, slot: usize, images: HashMap<String, i64>) {
        if self.rows[slot].images == images {
            return;
        }
        for image in self.rows[slot].images.keys() {
            if let Some(count) = self.spread.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.spread.remove(image);
                }
            }
        }
        for image in images.keys() {
            *self.spread.entry(image.clone()).or_default() += 1;
        }
        self.rows[slot].images = images;
        self.image_epoch += 1;
    }

    /// Forgets a node; its pods stay known.
    pub fn unset(&mut self, name: &str) -> Option<usize> {
        let slot = self.find(name)?;
        if self.rows[slot].present {
            self.set_images(slot, HashMap::new());
            let row = &mut self.rows[slot];
            row.present = false;
            row.labels.clear();
            row.taints.clear();
            row.unschedulable = false;
            row.max_pods = 0;
            self.allocatable.iter_mut().for_each(|table| table[slot] = 0);
            self.present -= 1;
            self.image_epoch += 1;
            self.look(slot);
        }
        self.release(slot);
        Some(slot)
    }

    /// Adds a pod's demands to a node.
    pub fn add(&mut self, slot: usize, uid: &str, class: &Class, columns: usize) {
        self.widen(columns);
        self.change(slot, class, 1);
        let row = &mut self.rows[slot];
        row.pods.insert(uid.to_owned());
        for port in &class.ports {
            match row.ports.iter_mut().find(|(p, _)| p == port) {
                Some((_, count)) => *count += 1,
                None => row.ports.push((port.clone(), 1)),
            }
        }
    }

    /// Takes a pod's demands off a node.
    pub fn remove(&mut self, slot: usize, uid: &str, class: &Class) {
        self.change(slot, class, -1);
        let row = &mut self.rows[slot];
        row.pods.remove(uid);
        for port in &class.ports {
            if let Some((_, count)) = row.ports.iter_mut().find(|(p, _)| p == port) {
                *count -= 1;
            }
        }
        row.ports.retain(|(_, count)| *count > 0);
        self.release(slot);
    }

    fn change(&mut self, slot: usize, class: &Class, sign: i64) {
        // Wrapping, so that what was added can be taken off even where the sum is out of range: amounts are
        // at most i64::MAX and the fit test below treats a wrapped (negative) sum as full.
        for (column, amount) in &class.requests {
            let sum = &mut self.requested[*column][slot];
            *sum = sum.wrapping_add(sign.wrapping_mul(*amount));
        }
        for (sum, amount) in self.scored.iter_mut().zip(class.scored) {
            sum[slot] = sum[slot].wrapping_add(sign.wrapping_mul(amount));
        }
    }

    fn release(&mut self, slot: usize) {
        let row = &self.rows[slot];
        if !row.present && row.pods.is_empty() && self.slots.get(&row.name) == Some(&slot) {
            self.slots.remove(&row.name.clone());
            self.free.push(slot);
        }
    }
}

/// FNV-1a, 64 bits, then mixed.
fn salt(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}

/// The finaliser of splitmix64.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
