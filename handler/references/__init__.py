"""The CRDS mirror, as the function and the operator's tool read it: keys, rules, masks."""
