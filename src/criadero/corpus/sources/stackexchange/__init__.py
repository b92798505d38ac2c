"""StackExchange: questions with their answers, from Posts.xml files, one site a split."""
