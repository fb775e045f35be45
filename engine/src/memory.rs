//! Memory on its way into images and out of them.
mod ahead;
pub(crate) mod areas;
pub(crate) mod capture;
pub(crate) mod collect;
pub(crate) mod estimate;
pub(crate) mod fill;
pub(crate) mod flags;
pub(crate) mod foresight;
pub(crate) mod missing;
mod origin;
pub(crate) mod pages;
pub(crate) mod ranges;
mod remembered;
pub(crate) mod tracker;
pub(crate) mod witness;
