"""StackExchange: questions with their answers, from Posts.xml files, plain or in .7z archives."""
