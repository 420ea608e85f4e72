# Reads the pages of the site and says which links lead nowhere: to no file, or to no place in a page.
# Pages of the reference are looked for but not read.
function note(link) { from[++count] = FILENAME; links[count] = link }
{
  rest = $0
  while (match(rest, /(id|name|href|src)="[^"]*"/)) {
    kind = substr(rest, RSTART, index(substr(rest, RSTART), "=") - 1)
    text = substr(rest, RSTART + length(kind) + 2, RLENGTH - length(kind) - 3)
    rest = substr(rest, RSTART + RLENGTH)
    if (kind == "href" || kind == "src") note(text)
    else places[FILENAME "#" text]
  }
}
END {
  for (i = 1; i <= count; ++i) {
    link = links[i]
    if (link ~ /^[a-z]+:/) continue
    path = link
    sub(/#.*/, "", path)
    anchor = link ~ /#./ ? substr(link, index(link, "#") + 1) : ""
    if (path == "") {
      path = from[i]
    } else {
      folder = from[i]
      sub(/[^\/]*$/, "", folder)
      path = folder path
      while (sub(/[^\/]+\/\.\.\//, "", path));
    }
    if (!(path in there)) there[path] = (getline line < path) >= 0
    close(path)
    if (!there[path] || (anchor != "" && path !~ /\/reference\// && !((path "#" anchor) in places))) {
      print from[i] ": nothing at " link > "/dev/stderr"
      bad = 1
    }
  }
  if (count < 100) {
    print "only " count " links were found" > "/dev/stderr"
    bad = 1
  }
  exit bad
}
