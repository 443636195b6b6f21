"""A whole region as one map: cut into blocks, embedded as an export, stored as one seamless grid."""
