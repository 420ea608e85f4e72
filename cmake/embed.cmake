# capsfw_embed(TARGET FILE NAME [STYLE]): the text of FILE, at most 64 kB, as `extern const char* const NAME`
# of namespace capsfw::apps, compiled into TARGET. The style sheet STYLE, to which a page has a <link>, takes
# the place of that link. A changed file is embedded again by the next build.
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${FILE} text)
  if(STYLE)
    file(READ ${STYLE} style)
    cmake_path(GET STYLE FILENAME link)
    string(REPLACE "<link rel=\"stylesheet\" href=\"${link}\">" "<style>\n${style}</style>" text "${text}")
  endif()
  file(WRITE ${OUT} "namespace capsfw::apps {\nextern const char* const ${NAME};\n"
                    "const char* const ${NAME} = R\"embedded(${text})embedded\";\n}\n")
  return()
endif()

set(CAPSFW_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})
function(capsfw_embed target file name)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp)
  add_custom_command(OUTPUT ${out} DEPENDS ${file} ${ARGN} ${CAPSFW_EMBED_SCRIPT} VERBATIM
                     COMMAND ${CMAKE_COMMAND} -DFILE=${file} -DOUT=${out} -DNAME=${name} -DSTYLE=${ARGN}
                             -P ${CAPSFW_EMBED_SCRIPT})
  target_sources(${target} PRIVATE ${out})
endfunction()
