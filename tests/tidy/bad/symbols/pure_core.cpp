// What a core may do: values, containers, strings.
#include <map>
#include <string>

std::string pure(const std::map<int, std::string>& names, int key) {
  const auto it = names.find(key);
  return it == names.end() ? std::to_string(key) : it->second + "!";
}
