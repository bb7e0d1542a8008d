"""Interface: what people use from notebooks and terminals. Imports all rooms but execution; nothing imports it."""
