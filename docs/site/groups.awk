# A filter that Doxygen reads our headers through; line numbers stay.
#
# 1. A /// comment speaks for the declaration below it and for those that follow directly and are alike: of
#    the same name, or the same but for the name. Doxygen would give it to the first of them alone.
#    The comment at the head of a file is that of the file.
# 2. Names that mean the same in every class are explained here, once, unless a header says more.
# 3. A ///< behind several names on a line speaks for all of them; Doxygen gives it to the last.

function standard(code) {
  if (code ~ /^(explicit )?[A-Z][A-Za-z0-9]*\(/ && type != "" && code ~ "^(explicit )?" type "\\(")
    return "Constructs; sizes, options and errors are those that the class names."
  if (code ~ / (begin|end)\(\)/) return "The range, for `for (... : x)`."
  if (code ~ /^using (iterator_category|value_type|difference_type|pointer|reference) =/) return "As of every input iterator."
  if (code ~ / operator(\*|->|\+\+)\((int)?\)/ || code ~ /operator==\(const Iterator&/) return "As of every input iterator."
  if (code ~ /^static constexpr const char\* kRouting/) return "Its name in the table of routings and on command lines."
  if (code ~ /^using Options =/) return "The options that it takes."
  if (code ~ /^void describe\(OptionText&/) return "Names the fields of the options, for text and for saved networks."
  if (code ~ / options\(\) const/) return "The options that it was made with."
  return ""
}

# The name of a function or variable, and the declaration without it.
function name_of(code) {
  sub(/ *(=|\(|;|{).*/, "", code)
  if (code ~ / operator/) return "operator"
  sub(/.*[ *&]/, "", code)
  return code
}
function form_of(code,   name, at) {
  sub(/^(inline|explicit|static|virtual) /, "", code)
  sub(/ *{.*/, "", code)
  sub(/;.*/, "", code)
  if (code !~ /\(/) sub(/ =.*/, "", code)
  name = name_of(code)
  at = index(code, name)
  return substr(code, 1, at - 1) "#" substr(code, at + length(name))
}

# "T a = 1, b;" as one documented declaration for each name, on one line.
function each(code, say,   result, kind, names, n, i, name, nested) {
  sub(/;.*/, "", code)
  kind = code
  sub(/( *=.*|,.*)/, "", kind)
  if (match(kind, / [A-Za-z0-9_]+$/) == 0) return $0
  kind = substr(kind, 1, RSTART)
  n = split(substr(code, length(kind) + 1), names, ",")
  result = name = ""
  for (i = 1; i <= n; ++i) {
    name = name (nested > 0 ? "," : "") names[i]
    nested += gsub(/[{<]/, "&", names[i]) - gsub(/[}>]/, "&", names[i])
    if (nested > 0) continue
    result = result "/** " say " */ " kind name "; "
    name = ""
  }
  return result
}

/^#pragma once/ {
  print "/** \\file"
  head = 1
  next
}
head {
  if ($0 ~ /^\/\//) {
    $0 = substr($0, 3)
    gsub(/\\/, "\\\\\\\\")
    print
    next
  }
  $0 = "*/ " $0
  head = 0
}
{
  line = $0
  sub(/^[ \t]+/, "", line)
}
line ~ /^\/\/\// {
  gsub(/\*\//, "*\\&zwj;/")  # no end of a comment: "CLASS/**/FILE"
  gsub(/\*\//, "*\\&zwj;/", line)
  text = (fresh ? text " " : "") substr(line, 4)
  fresh = 1
  done = 0
  split("", names_seen)
  split("", forms_seen)
  print
  next
}
line == "" || line ~ /^\/\// || line ~ /^#/ || line ~ /^(public|private|protected):/ {
  fresh = done = 0
  text = ""
  print
  next
}
{
  say = ""
  if (!inside && line !~ /\/\/\/</ && line !~ /^}/) {
    if (text == "")
      say = standard(line)
    else if (done && (name_of(line) in names_seen || form_of(line) in forms_seen))
      say = text
  }
  if (!inside && text != "") {
    if (!done || say != "") {
      names_seen[name_of(line)]
      forms_seen[form_of(line)]
    } else {
      text = ""
    }
  }
  if (line ~ /^[^(]*,[^(]*;/ && line !~ /^(enum|using) / && !inside) {
    if (line ~ /\/\/\/</) {
      say = line
      sub(/.*\/\/\/</, "", say)
    } else if (text != "") {
      say = text
    }
    if (say != "") $0 = each(line, say)
    say = ""
  }
  if (say != "") {
      match($0, /^ */)
    $0 = substr($0, 1, RLENGTH) "/** " say " */ " substr($0, RLENGTH + 1)
  }
  print
  fresh = 0
  code = line
  sub(/\/\/.*/, "", code)
  if (match(code, /^(struct|class) [A-Za-z0-9]+/) && code !~ /;/) type = substr(code, RSTART + 6 + (code ~ /^struct/), RLENGTH)
  sub(/[^A-Za-z0-9].*/, "", type)
  if (code ~ /^(struct|class|enum|namespace|union)[^;]*$/ || (text != "" && line ~ /\/\/\/</)) {
    text = ""
    done = 0
    depth = 0
    inside = 0
    next
  }
  depth += gsub(/[({]/, "&", code) - gsub(/[)}]/, "&", code)
  if (depth < 0) {
    depth = 0
    text = ""
  }
  inside = depth > 0 || code !~ /[;}][ \t]*$/
  if (!inside) done = 1
}
