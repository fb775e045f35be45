//! An inventory as bytes: one prost message with a version in front.
//!
//! The messages mirror [`crate::inventory`] field by field, under CRIU's names where the concept is
//! CRIU's (`pgid`, `sid`, `pgoff`). They are apart from it because an image is foreign: here every
//! number is checked once, and the engine then works with types that cannot be wrong.
//!
//! A newer version is refused by its number, a record of an unknown kind by its name: what we do not
//! know would be lost by going on. That references lead somewhere is the plan's to check.
mod convert;
mod message;

use prost::Message;

use crate::error::{Error, Result};
use crate::inventory::Inventory;

/// Of the format. A change that an older reader must not ignore counts it up.
const VERSION: u32 = 1;

/// Encodes an inventory.
#[must_use]
pub fn encode(inventory: &Inventory) -> Vec<u8> {
    message::Image { version: VERSION, ..message::Image::from(inventory) }.encode_to_vec()
}

/// Decodes one: foreign bytes, of which nothing is trusted.
pub fn decode(bytes: &[u8]) -> Result<Inventory> {
    let damaged = |source| Error::Record("inventory".into(), Some(source));
    let image = message::Image::decode(bytes).map_err(damaged)?;
    if image.version != VERSION {
        return Err(Error::Record(format!("inventory of version {}", image.version), None));
    }
    Inventory::try_from(image)
}

#[cfg(test)]
mod tests;
