// The job of nearest_word: guess what a person meant to type, for "did you mean …". Pure.
#pragma once

#include <string>
#include <vector>

namespace havm {

// The candidate with the fewest edits (insert, delete, replace, swap of neighbours; case counts for
// nothing, '-' and '_' are the same), or "" when even the best differs in more than a third of its
// letters.
std::string nearest_word(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace havm
