// The job of check_pair: if both hosts lost their power, or their engines, right now, would the
// returning pair know what differs? It recovers what their disks may hold by the production
// decoders, asks the production verdict, and compares the images.
#pragma once

#include "tests/torture/judge.hpp"
#include "tests/torture/node_disk.hpp"

namespace havm::torture {

// Violations: metadata that cannot be used; an owner that could not serve; a verdict that refuses;
// verdicts that are not mirrored; a partial resync that would leave a difference (M1). For each
// node, in random: a power cut, or its files as they are.
void check_pair(Surroundings& world, const Register& now, const NodeDisk& a, const NodeDisk& b);

}  // namespace havm::torture
