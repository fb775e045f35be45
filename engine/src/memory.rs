//! Memory on its way into images and out of them.
pub(crate) mod areas;
pub(crate) mod fill;
