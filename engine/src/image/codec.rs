//! An inventory as bytes: prost messages, versioned, unknown records refused by name.
use crate::error::{Error, Result};
use crate::inventory::Inventory;

/// Encodes an inventory.
#[must_use]
pub fn encode(_inventory: &Inventory) -> Vec<u8> {
    Vec::new()
}

/// Decodes one: foreign bytes, of which nothing is trusted.
pub fn decode(_bytes: &[u8]) -> Result<Inventory> {
    Err(Error::Sketch("the codec"))
}
