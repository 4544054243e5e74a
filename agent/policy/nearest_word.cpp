#include "agent/policy/nearest_word.hpp"

#include <algorithm>
#include <cstddef>

namespace havm {
namespace {

constexpr std::size_t max_word_bytes =
    64;  // the distance is quadratic; longer words are no typing errors

std::string folded(const std::string& word) {
  std::string out = word;
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return out;
}

std::size_t edits(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j)
    d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string nearest_word(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_edits = 0;
  if (word.size() > max_word_bytes) return best;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > max_word_bytes) continue;
    const std::size_t count = edits(folded(word), folded(candidate));
    if (count > std::max<std::size_t>(1, candidate.size() / 3)) continue;
    if (best.empty() || count < best_edits) {
      best = candidate;
      best_edits = count;
    }
  }
  return best;
}

}  // namespace havm
