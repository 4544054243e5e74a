#include "agent/cli/terminal.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include <unistd.h>
#include <wchar.h>

namespace havm {
namespace {

// The next character of UTF-8 `text` at `at`; moves `at` behind it. 0xFFFD for a malformed byte.
char32_t next_character(const std::string& text, std::size_t& at) {
  const auto first = static_cast<unsigned char>(text[at++]);
  if (first < 0x80) return first;
  const std::size_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : first >= 0xC2 ? 1 : 0;
  if (more == 0 || first > 0xF4 || at + more > text.size()) return 0xFFFD;
  char32_t value = first & (0x3FU >> more);
  for (std::size_t i = 0; i < more; ++i) {
    const auto byte = static_cast<unsigned char>(text[at + i]);
    if ((byte & 0xC0U) != 0x80U) return 0xFFFD;
    value = (value << 6U) | (byte & 0x3FU);
  }
  at += more;
  return value;
}

bool is_control(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0);
}

const char* escape_of(Colour colour) {
  switch (colour) {
    case Colour::good:
      return "\x1B[32m";
    case Colour::warning:
      return "\x1B[33m";
    case Colour::bad:
      return "\x1B[31m";
    case Colour::plain:
      break;
  }
  return "";
}

}  // namespace

Terminal::Terminal()
    : output_terminal_(isatty(STDOUT_FILENO) == 1),
      error_terminal_(isatty(STDERR_FILENO) == 1),
      input_terminal_(isatty(STDIN_FILENO) == 1) {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* kind = std::getenv("TERM");
  const bool dumb = kind == nullptr || std::string(kind) == "dumb";
  colours_ = output_terminal_ && !dumb && (no_colour == nullptr || *no_colour == '\0');
}

void Terminal::print(const std::string& text) {
  end_progress();
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void Terminal::print_extra(const std::string& text) {
  if (!quiet) print(text);
}

void Terminal::print_error(const Error& error) {
  end_progress();
  std::fflush(stdout);  // in the order in which it was said
  std::size_t begin = 0;
  while (begin <= error.message.size()) {
    const std::size_t end = std::min(error.message.find('\n', begin), error.message.size());
    const std::string line = printable(error.message.substr(begin, end - begin));
    std::fprintf(stderr, "error: %s\n", line.c_str());
    begin = end + 1;
  }
}

bool Terminal::confirm(const std::string& question) {
  if (!input_terminal_ || !error_terminal_) return true;
  end_progress();
  std::fprintf(stderr, "%s [y/N] ", printable(question).c_str());
  std::fflush(stderr);
  std::string answer;
  std::getline(std::cin, answer);
  return !answer.empty() && (answer[0] == 'y' || answer[0] == 'Y');
}

std::string Terminal::coloured(const std::string& text, Colour colour) const {
  if (!colours_ || colour == Colour::plain || text.empty()) return text;
  return escape_of(colour) + text + "\x1B[0m";
}

void Terminal::print_progress(const std::string& line) {
  if (!shows_progress()) return;
  std::fflush(stdout);
  const std::size_t columns = display_columns(line);
  const std::string rest(progress_columns_ > columns ? progress_columns_ - columns : 0, ' ');
  std::fprintf(stderr, "\r%s%s", line.c_str(), rest.c_str());
  std::fflush(stderr);
  progress_columns_ = columns;
  progress_shown_ = true;
}

void Terminal::end_progress() {
  if (!progress_shown_) return;
  progress_shown_ = false;
  progress_columns_ = 0;
  std::fputc('\n', stderr);
}

bool Terminal::flush() {
  end_progress();
  return std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
}

std::string printable(const std::string& text) {
  std::string out;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t begin = at;
    const char32_t c = next_character(text, at);
    if (!is_control(c) && c != 0xFFFD) {
      out.append(text, begin, at - begin);
      continue;
    }
    for (std::size_t i = begin; i < at; ++i) {
      std::array<char, 5> hex{};
      std::snprintf(hex.data(), hex.size(), "\\x%02X", static_cast<unsigned char>(text[i]));
      out += hex.data();
    }
  }
  return out;
}

std::size_t display_columns(const std::string& text) {
  std::size_t columns = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    const char32_t c = next_character(text, at);
    const int width = wcwidth(static_cast<wchar_t>(c));
    columns += width < 0 ? 1U : static_cast<std::size_t>(width);
  }
  return columns;
}

}  // namespace havm
