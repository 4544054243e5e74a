#include "agent/policy/findings.hpp"

#include <algorithm>
#include <cerrno>

namespace havm {

std::string Finding::text() const {
  return pointer.empty() ? message : pointer + ": " + message;
}

void Findings::add(std::string pointer, std::string message) {
  if (list_.size() >= max_findings) return;
  Finding finding{std::move(pointer), std::move(message)};
  if (std::find(list_.begin(), list_.end(), finding) == list_.end())
    list_.push_back(std::move(finding));
}

void Findings::add_below(const std::string& prefix, const Findings& other) {
  for (const Finding& finding : other.list_)
    add(prefix + finding.pointer, finding.message);
}

void Findings::sort() {
  std::stable_sort(list_.begin(), list_.end(),
                   [](const Finding& x, const Finding& y) { return x.pointer < y.pointer; });
}

Error Findings::to_error(const std::string& source) const {
  std::string text = source + ": ";
  for (std::size_t i = 0; i < list_.size(); ++i) {
    if (i > 0) text += "; ";
    text += list_[i].text();
  }
  return Error(text, EINVAL);
}

std::string pointer_to(const std::string& pointer, const std::string& key) {
  std::string escaped;
  for (const char c : key) {
    if (c == '~')
      escaped += "~0";
    else if (c == '/')
      escaped += "~1";
    else
      escaped += c;
  }
  return pointer + "/" + escaped;
}

}  // namespace havm
